"""Sums and rows over all processes of a distributed run: what starts from data must start alike in each of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from hybridkern._finite import is_plain


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


def rows_over_ranks(x: Tensor) -> Tensor:
    """The rows of ``x`` ``(N, *S)`` of all ranks, in the order of the ranks, for statistics that are no sums.

    Ranks may have different numbers of rows.
    """
    if not _several() or not is_plain(x):
        return x
    counts = [torch.zeros((), dtype=torch.int64, device=x.device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.full_like(counts[0], len(x)))
    sizes = [int(count) for count in counts]
    padded = x.new_zeros(max(sizes), *x.shape[1:])
    padded[: len(x)] = x.detach()
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def of_first_rank(x: Tensor) -> Tensor:
    """``x`` of the first rank, written into that of the others: for what is drawn at random."""
    if _several():
        dist.broadcast(x, 0)
    return x
