"""Pieces of the formulas whose derivatives of every order are right, at their bounds and kinks and in their tails.

The gradient of ``Tensor.clamp`` at its bound is 1 before torch 2.14 and 0 from then on; a branch that holds at the
bound needs the 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def at_least(x: Tensor, bound: float) -> Tensor:
    """``max(x, bound)``; NaN stays NaN."""
    return torch.where(x < bound, bound, x)


def at_most(x: Tensor, bound: float) -> Tensor:
    """``min(x, bound)``; NaN stays NaN."""
    return torch.where(x > bound, bound, x)


def held(x: Tensor, low: float, high: float) -> Tensor:
    """``x`` between two bounds, with gradient 1 beyond them too: what is held there still feels where it should go."""
    bounded = at_most(at_least(x, low), high).detach()
    return bounded + torch.where(x.isfinite(), x - x.detach(), 0.0)


def log_sigmoid(x: Tensor) -> Tensor:
    """``log(sigma(x))``.

    The second derivative of ``torch.nn.functional.logsigmoid`` holds ``sigma - 1``, which is 0 from ``x = 37`` on.
    """
    negative = x < 0
    magnitude = torch.where(negative, -x, x)  # not abs, whose gradient at 0 is 0
    return torch.where(negative, x, 0.0) - torch.log1p(torch.exp(-magnitude))


def log_sum_exp(x: Tensor, dim: int) -> Tensor:
    """``log(sum(exp(x)))`` over a dimension; minus infinity, with gradient 0, where all of it is minus infinity.

    The gradient of ``torch.logsumexp`` is ``exp(x - result)``: of numbers so large that ``result`` has no digits left
    for the logarithm of how many they are, each would get all of it.
    """
    top = x.detach().amax(dim, keepdim=True)
    total = torch.exp(x - torch.where(top.isinf(), 0.0, top)).sum(dim)
    nothing = total == 0
    return torch.where(nothing, -torch.inf, torch.log(torch.where(nothing, 1.0, total)) + top.squeeze(dim))
