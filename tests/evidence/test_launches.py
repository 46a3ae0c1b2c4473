"""Launches are counted right, and a step of Glow keeps within its budget."""

from __future__ import annotations

import pytest
import torch

from tests.evidence.toolchain import require_triton

require_triton(module=True)

from hybridkern import ops  # noqa: E402
from hybridkern.ops import _gpu  # noqa: E402
from tests.evidence.counting import eager, ours  # noqa: E402
from tests.evidence.launches import launched_operators  # noqa: E402
from tests.evidence.subjects import ALIGNED, MAIN, Case, Subject  # noqa: E402
from tests.ops import inputs  # noqa: E402

FORWARD, BACKWARD = 3, 4  # of a step of Glow without its network


def test_views_and_allocations_are_no_launches():
    x = torch.ones(4, 6)
    assert launched_operators(lambda: x.view(6, 4).t()[1:].unsqueeze(0).expand(2, -1, -1)) == []
    assert launched_operators(lambda: torch.empty_like(x)) == []
    assert launched_operators(lambda: (x + 1).sum()) == ["aten::add", "aten::sum"]
    assert launched_operators(lambda: x.t().contiguous()) == ["aten::clone"]


@pytest.mark.parametrize("subject", MAIN, ids=lambda subject: subject.name)
def test_an_operator_launches_at_most_two_kernels_a_pass(subject: Subject):
    """One, and a second stage where an example or a shared gradient is divided among programs."""
    args = subject.arguments(ALIGNED[0])
    own, plain = ours(subject.operator, args), eager(subject.operator, args)
    assert own.forward <= 2 and own.backward <= 2
    assert own.forward < plain.forward and own.backward < plain.backward


@pytest.mark.parametrize("case", [ALIGNED[0], Case((256, 6, 32, 32))], ids=lambda case: case.label)
def test_a_step_of_glow_without_its_network_keeps_within_its_budget(case: Case):
    if "paired_conv1x1_forward" not in _gpu.TRITON_MODULES:
        pytest.skip("paired_conv1x1 has no Triton kernel: nothing is shown of a step of Glow")
    channels = case.shape[1]
    first, second = inputs.normal(0, case.shape, case.dtype), inputs.normal(1, case.shape, case.dtype)
    params = inputs.coupling_params("glow", case.shape, case.dtype, reach=0.3)
    weight, bias = (
        inputs.normal(2, (2 * channels, 2 * channels), case.dtype),
        inputs.normal(3, (2 * channels,), case.dtype),
    )
    log_det = inputs.normal(4, case.shape[:1], case.dtype)

    def step(first, second, weight, bias, params, log_det):
        first, second = ops.paired_conv1x1(first, second, weight, bias)
        return first, *ops.affine_coupling(second, params, log_det, form="glow")

    names = ("first", "second", "weight", "bias", "params", "log_det")
    args = dict(zip(names, (first, second, weight, bias, params, log_det), strict=True))
    own, plain = ours(step, args), eager(step, args)
    assert own.forward <= FORWARD and own.backward <= BACKWARD, (own, plain)
    assert own.forward < plain.forward and own.backward < plain.backward
