"""``masked_network`` of a masked autoregressive flow against its layers one by one, as nflows has them."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from benchmarks._case import Work
from hybridkern import ops
from hybridkern.ops.masked_network import reference

_PLAN = (1, 1, 3, 1, 6, 0)  # two residual blocks
_ADDS, _ACTIVATED = (None, None, 0, None, 2, None), (True, True, True, True, False, False)


def work(batch: int, dim: int, hidden: int) -> Work:
    """``x`` ``(batch, dim)``, five hidden layers, shift and scale of each number."""
    widths = (dim, *[hidden] * 5, 2 * dim)
    degrees = [torch.arange(dim) + 1, *[torch.arange(hidden) % (dim - 1) + 1] * 5, torch.arange(2 * dim) // 2 + 1]
    masks = [(b[:, None] >= a).float() for a, b in itertools.pairwise(degrees)]
    masks[-1] = (degrees[6][:, None] > degrees[5]).float()
    weights = [torch.randn(units, size) / size**0.5 for size, units in itertools.pairwise(widths)]
    biases = [0.1 * torch.randn(units) for units in widths[1:]]

    def ours(x: Tensor, *rest: Tensor) -> tuple[Tensor]:
        """By the operator."""
        return (ops.masked_network(x, rest[:6], rest[6:], masks, activated=_ACTIVATED, adds=_ADDS),)

    def eager(x: Tensor, *rest: Tensor) -> tuple[Tensor]:
        """By the formula."""
        return (reference.masked_network(x, rest[:6], rest[6:], masks, _PLAN, 1),)

    return Work(ours, eager, (torch.randn(batch, dim), *weights, *biases))
