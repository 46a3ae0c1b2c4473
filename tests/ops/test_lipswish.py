"""``lipswish`` and ``clipswish`` against arithmetic of many digits, and the slope that they promise."""

from __future__ import annotations

import pytest
import torch
from mpmath import mp
from torch import Tensor

from hybridkern import ops
from tests.ops import inputs

F64 = torch.float64
BETAS = (-3.0, 0.5, 4.0)
ROUNDING = 1e-13  # an exponent of a hundred is precise to a hundred units in the last place
POINTS = (-800.0, -30.0, -1.3, -1e-9, 0.0, 0.4, 2.0, 50.0)


def _swish(x: float, beta: float) -> float:
    with mp.workdps(60):
        return float(mp.mpf(x) / (1 + mp.exp(-mp.log1p(mp.exp(beta)) * x)) / mp.mpf("1.1"))


@pytest.mark.parametrize("beta", BETAS)
def test_values(beta: float) -> None:
    x, factor = torch.tensor([POINTS], dtype=F64), torch.tensor([beta], dtype=F64)
    up, down = (torch.tensor([[_swish(sign * value, beta) for value in POINTS]], dtype=F64) for sign in (1, -1))
    torch.testing.assert_close(ops.lipswish(x, factor), up, rtol=ROUNDING, atol=1e-300)
    torch.testing.assert_close(ops.clipswish(x, factor), torch.cat((up, down), 1) / 1.004, rtol=ROUNDING, atol=1e-300)


@pytest.mark.parametrize("beta", BETAS)
def test_the_slope_is_one_at_most_and_nearly_reached(beta: float) -> None:
    """Of one output, and of the two of a number together: a residual block of such layers is invertible."""
    factor = torch.tensor([beta], dtype=F64)
    x = torch.linspace(-60, 60, 200001, dtype=F64)[:, None].requires_grad_()

    def slopes(out: Tensor) -> Tensor:
        return torch.autograd.grad(out.sum(), x, retain_graph=True)[0]

    single, pair = slopes(ops.lipswish(x, factor)), ops.clipswish(x, factor)
    together = torch.hypot(slopes(pair[:, :1]), slopes(pair[:, 1:]))
    for found in (single.abs().max().item(), together.max().item()):
        assert 0.999 < found <= 1


def test_low_precision_is_rounded_once() -> None:
    x = inputs.normal(0, (4, 6), torch.bfloat16, scale=3.0)
    for function in (ops.lipswish, ops.clipswish):
        assert torch.equal(function(x, torch.tensor(0.5)), function(x.float(), torch.tensor(0.5)).bfloat16())
