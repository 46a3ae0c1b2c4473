"""The coupling network's Triton kernels: launches and bytes of a flow step, accesses, and size of the compiled code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from torch import Tensor

from tests.evidence.toolchain import require_triton

require_triton(module=True)

from hybridkern import ops  # noqa: E402
from hybridkern.ops.coupling_network import triton as launchers  # noqa: E402
from tests.evidence.counting import ours, step_launches  # noqa: E402
from tests.evidence.interpreter import audited, recorded  # noqa: E402
from tests.evidence.launches import Launch  # noqa: E402
from tests.evidence.static_run import report_launch  # noqa: E402
from tests.evidence.subjects import on_triton  # noqa: E402
from tests.ops import test_coupling_network as network  # noqa: E402

Size = tuple[int, ...]
GLOW = (64, 6, 16, 16, 512, 12)  # the first level of a Glow on 3x32x32, hidden 512
SMALL = (2, 3, 4, 5, 40, 6)
KERNELS = {"gather_kernel", "product_kernel", "collect_kernel", "unpack_kernel"}


def bytes_of(*values: object) -> int:
    """Each tensor once."""
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))


def run(size: Size, bf16: bool, save: bool) -> None:
    args = network.arguments(size)
    network.run(args, network.gradient(args), bf16, save)


@contextmanager
def products(note: Callable[[int], None]) -> Iterator[None]:
    """PyTorch's products are noted by their bytes, and not carried out."""

    def product(a: Tensor, b: Tensor, wide: torch.dtype) -> Tensor:
        out = a.new_empty((a.shape[0], b.shape[1]), dtype=wide)
        note(bytes_of(a, b, out))
        return out

    with mock.patch.object(launchers, "_wide_product", product):
        yield


def launches_and_products(
    size: tuple[int, ...], bf16: bool = True, save: bool = True
) -> tuple[list[Launch], list[int]]:
    moved: list[int] = []
    with on_triton(), recorded() as launches, products(moved.append):
        run(size, bf16, save)
    return launches, moved


def test_a_flow_step_launches_twenty_kernels() -> None:
    def function(**args: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return ops.coupling_network(**args)

    moved: list[int] = []
    with products(moved.append):
        own = ours(function, network.arguments((2, 6, 4, 4, 64, 12)))
    assert own == (4, 5) and len(moved) == 5  # kernels of Triton and what PyTorch launches around them; products
    flow, _ = step_launches(ours, (2, 6, 4, 4))
    assert sum(own) + len(moved) + sum(flow) <= 20


@pytest.mark.parametrize("save", [True, False])
def test_it_moves_no_more_than_it_should(save: bool) -> None:
    """Every tensor that a launch reads or writes counted once; the flow's own operators beside it."""
    launches, moved = launches_and_products(GLOW, save=save)
    assert len(moved) == 5 and len(launches) == (9 if save else 11)
    total = sum(moved) + sum(bytes_of(*launch.arguments.values()) for launch in launches)
    pixels = GLOW[0] * GLOW[2] * GLOW[3]
    flow = 750  # of the coupling and the 1x1 convolution, forward and backward
    assert total / pixels + flow <= (20_000 if save else 24_000)


@pytest.mark.parametrize("bf16", [False, True])
def test_it_touches_what_it_should(bf16: bool, poisoned_memory: None) -> None:
    """Nothing out of bounds or unwritten is read, no two programs meet, in any order; every output is written once."""
    with audited("shuffled") as audits, on_triton():
        run(SMALL, bf16, False)
    assert {audit.launch.name.split(".")[-1] for audit in audits} == KERNELS
    for audit in audits:
        assert audit.findings == () and audit.atomics == 0, audit.launch.name


@pytest.mark.parametrize("bf16", [False, True])
def test_compiled_it_fits(bf16: bool) -> None:
    launches, _ = launches_and_products(GLOW, bf16)
    assert {launch.name.split(".")[-1] for launch in launches} == KERNELS
    for launch in launches:
        report = report_launch(launch, "sm_90")
        assert report.spills == report.scratch == 0, (launch.name, report)
        # products live on registers and shared memory; the others on threads
        least = 0.125 if "product" in launch.name else 0.375
        assert report.occupancy >= least, (launch.name, report)
        assert report.widest >= 16 or "product" not in launch.name, (launch.name, report)
