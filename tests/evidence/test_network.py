"""The coupling network's Triton kernels: launches and bytes of a flow step, accesses, and size of the compiled code."""

from __future__ import annotations

import pytest

from tests.evidence.toolchain import require_triton

require_triton(module=True)

from tests.evidence.counting import ours, step_launches  # noqa: E402
from tests.evidence.interpreter import audited  # noqa: E402
from tests.evidence.network import GLOW, bytes_a_pixel, launches_and_products, launches_of_a_pass, run  # noqa: E402
from tests.evidence.static_run import report_launch  # noqa: E402
from tests.evidence.subjects import on_triton  # noqa: E402

SMALL = (2, 3, 4, 5, 40, 6)
KERNELS = {"gather_kernel", "product_kernel", "collect_kernel", "unpack_kernel"}


def test_a_flow_step_launches_twenty_kernels() -> None:
    own, products = launches_of_a_pass()
    assert own == (4, 5) and products == 5
    flow, _ = step_launches(ours, (2, 6, 4, 4))
    assert sum(own) + products + sum(flow) <= 20


@pytest.mark.parametrize("save", [True, False])
def test_it_moves_no_more_than_it_should(save: bool) -> None:
    """Every tensor that a launch reads or writes counted once; the flow's own operators beside it."""
    launches, products = launches_and_products(GLOW, save=save)
    assert len(products) == 5 and len(launches) == (9 if save else 11)
    assert bytes_a_pixel(save) <= (20_000 if save else 24_000)


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
