"""Bounds for the branches of ``torch.where``, with gradient 1 at the bound itself.

The gradient of ``Tensor.clamp`` there is 1 before torch 2.14 and 0 from then on; a branch that holds at the bound
needs the 1.
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
