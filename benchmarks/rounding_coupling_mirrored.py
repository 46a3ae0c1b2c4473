"""``rounding_coupling_mirrored`` against the tutorial's coupling and its reversal of all dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks._case import Work
from benchmarks.tutorial import RoundStraightThrough
from hybridkern import ops


def ours(a: Tensor, b: Tensor, t: Tensor, beta: Tensor) -> tuple[Tensor]:
    """The joined result."""
    return (ops.rounding_coupling_mirrored(a, b, t, beta, 0, join=True),)


def eager(a: Tensor, b: Tensor, t: Tensor, beta: Tensor) -> tuple[Tensor]:
    """``cat`` and ``flip``, with the factor inside the rounding."""
    return (torch.cat((a, b + RoundStraightThrough.apply(beta[0] * t)), 1).flip(1),)


def work(batch: int, half: int) -> Work:
    """Halves ``(batch, half)`` of integers, translations, and one factor."""
    a, b = (torch.randn(batch, half).mul(8).round() for _ in range(2))
    return Work(ours, eager, (a, b, torch.randn(batch, half) * 3, torch.tensor([0.7])))
