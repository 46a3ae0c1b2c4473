"""Checkerboards over all dimensions but the batch, split along the last one."""

from __future__ import annotations

import torch
from torch import Tensor


def _color(shape: torch.Size, device: torch.device, inverted: bool) -> Tensor:
    """Whether the sum of the indices before the last dimension is even, ``(1, *S, 1)``; the other way if inverted."""
    total = torch.full((1,) * len(shape), int(inverted), device=device)
    for dim, size in enumerate(shape[1:-1], start=1):
        total = total + torch.arange(size, device=device).view(-1, *(1,) * (len(shape) - dim - 1))
    return total % 2 == 0


def split_checkerboard(z: Tensor, inverted: bool) -> tuple[Tensor, Tensor]:
    """The elements of ``z`` ``(B, *S)`` whose indices in ``S`` sum to an odd number, and to an even one.

    The last dimension is even; both results have half of it. ``inverted`` exchanges them.
    """
    even, odd = z.unflatten(-1, (-1, 2)).unbind(-1)
    color = _color(z.shape, z.device, inverted)
    return torch.where(color, odd, even), torch.where(color, even, odd)


def merge_checkerboard(z1: Tensor, z2: Tensor, inverted: bool) -> Tensor:
    """Undoes :func:`split_checkerboard`."""
    color = _color(z1.shape, z1.device, inverted)
    return torch.stack([torch.where(color, z2, z1), torch.where(color, z1, z2)], -1).flatten(-2)
