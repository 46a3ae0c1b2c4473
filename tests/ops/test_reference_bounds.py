"""The bounds of the reference formulas: value, NaN, and gradient 1 at the bound itself."""

from __future__ import annotations

import math

import pytest
import torch

from hybridkern.ops._bounds import at_least, at_most


@pytest.mark.parametrize(
    ("function", "values", "slopes"), [(at_least, [1, 1, 2], [0, 1, 1]), (at_most, [0, 1, 1], [1, 1, 0])]
)
def test_value_and_gradient(function, values: list[float], slopes: list[float]) -> None:
    x = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
    y = function(x, 1.0)
    assert y.tolist() == values and y.dtype is x.dtype
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == slopes
    assert math.isnan(function(torch.tensor([math.nan]), 1.0).item())
