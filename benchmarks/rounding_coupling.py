"""``rounding_coupling`` with a learnt ``beta`` against eager PyTorch with the straight-through rounding of IDF."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks._case import Work
from benchmarks.tutorial import RoundStraightThrough
from hybridkern import ops


def ours(x: Tensor, t: Tensor, beta: Tensor) -> tuple[Tensor]:
    """The shifted half."""
    return (ops.rounding_coupling(x, t, beta=beta),)


def eager(x: Tensor, t: Tensor, beta: Tensor) -> tuple[Tensor]:
    """``z2 + round(t)`` of jornpeters/integer_discrete_flows, with the tutorial's factor inside the rounding."""
    rounded: Tensor = RoundStraightThrough.apply(beta * t)
    return (x + rounded,)


def work(*shape: int) -> Work:
    """Integers ``x`` and translations of ``shape``; ``beta`` ``(1,)``."""
    return Work(ours, eager, (torch.randn(shape).mul(8).round(), torch.randn(shape) * 3, torch.tensor([0.7])))
