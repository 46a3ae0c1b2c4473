"""What the host does in a flow step is counted, and stays what it is: calls of the dispatcher, Python functions."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("triton", reason="the package triton is not installed")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("interpreted kernels have no plans", allow_module_level=True)

from hybridkern._extension import nodes
from tests.triton.host import WAYS, Host, of_a_step, way
from tests.triton.pretended import pretended

LAUNCHES = 14
# dispatches and frames at most, forward and backward
BUDGETS = {"C++ nodes, plans": (78, 108), "Python Functions, plans": (78, 315)}


def counted(name: str) -> Host:
    with pretended() as gpu, way(*WAYS[name]):
        return of_a_step(gpu)


@pytest.mark.parametrize("name", BUDGETS)
def test_a_flow_step_keeps_within_its_budget(name: str) -> None:
    if WAYS[name][0] and nodes.module is None:
        pytest.skip(nodes.reason)
    host = counted(name)
    assert host.launches == LAUNCHES
    dispatches, frames = BUDGETS[name]
    assert host.dispatches <= dispatches and host.frames <= frames, host


def test_plans_do_half_of_what_launchers_do() -> None:
    plans, launchers = (counted(f"Python Functions, {name}") for name in ("plans", "launchers"))
    assert plans.launches == launchers.launches
    assert plans.dispatches < launchers.dispatches and plans.frames < launchers.frames / 2
