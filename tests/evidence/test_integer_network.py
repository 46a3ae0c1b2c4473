"""The Triton kernel of networks of 8-bit integers: accesses, and the code that it is compiled to."""

from __future__ import annotations

import pytest
import torch

from tests.evidence.toolchain import require_triton

require_triton(module=True)

from hybridkern.codec.triton import DeviceNet  # noqa: E402
from tests.codec.test_integers import made, sample  # noqa: E402
from tests.evidence.interpreter import audited, recorded  # noqa: E402
from tests.evidence.launches import Launch  # noqa: E402
from tests.evidence.static_run import report_launch  # noqa: E402
from tests.evidence.triton_compile import NVIDIA_TARGETS, compile_launch  # noqa: E402


def device_net(channels: int, outputs: int, x: torch.Tensor) -> DeviceNet:
    net, _ = made("resnet", channels, outputs, x)
    return DeviceNet(net.plan, net.weights, net.numbers, net.tables)


def test_it_touches_what_it_should(poisoned_memory: None) -> None:
    """Nothing out of bounds or unwritten is read, no two programs meet, in any order."""
    x = sample(3, 5, 9, 3)
    net = device_net(3, 5, x)
    with audited("shuffled") as audits:
        net.run(x)
    assert len(audits) == 6
    for audit in audits:
        assert audit.findings == () and audit.atomics == 0, audit.launch.name


def launches() -> list[Launch]:
    """One of each kind: the stream set, a table, added to, the output."""
    x = sample(6, 16, 16, 4)
    net = device_net(6, 12, x)
    with recorded() as found:
        net.run(x)
    return [*found[:3], found[-1]]


@pytest.mark.parametrize("target", NVIDIA_TARGETS)
def test_it_is_compiled_to_products_of_8_bit_integers(target: str) -> None:
    for launch in launches():
        ptx = compile_launch(launch, target).text("ptx")
        assert any(word in ptx for word in (".s32.s8.s8.s32", "kind::i8", "s32.s8.s8")), launch
        report = report_launch(launch, target)
        assert report.spills == report.scratch == 0, (launch.name, report)
        assert report.occupancy >= 0.25, (launch.name, report)
