"""Sums over all processes of a distributed run: what starts from data must start alike in each of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def _several() -> bool:
    return dist.is_available() and dist.is_initialized()


def over_ranks(sums: Tensor) -> Tensor:
    """``sums``, added up in place over all ranks where ``torch.distributed`` runs."""
    if _several():
        dist.all_reduce(sums)
    return sums


def std_mean_over_ranks(x: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Standard deviation, without correction, and mean of ``x`` over ``dims`` and over all ranks."""
    std, mean = torch.std_mean(x, list(dims), correction=0)
    if not _several():
        return std, mean
    own = torch.full_like(mean, x.numel() / mean.numel())
    count, total = over_ranks(torch.stack([own, own * mean]))
    whole = total / count
    # squares about the common mean: those about 0 would leave no digits of a small deviation beside a large mean
    squares = over_ranks(own * (std.square() + (mean - whole).square()))
    return (squares / count).sqrt(), whole
