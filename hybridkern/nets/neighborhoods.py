"""Moments of the 3x3 neighborhoods, or single pixels, of images, and of what belongs to them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_BATCH = 1 << 22  # numbers of the matrix of all neighborhoods at a time


def summed(x: Tensor, y: Tensor, side: int) -> Tensor:
    """Sums of products, float64 where the tensors are: rows are neighborhood and 1, columns these with ``y`` between.

    Args:
        x: ``(N, C, H, W)``; zeros lie beyond its edges.
        y: ``(N, K, H, W)``.
        side: of the neighborhoods.

    Returns:
        ``(C * side**2 + 1, C * side**2 + K + 1)``.
    """
    width = x.shape[1] * side**2
    sums = x.new_zeros(width + 1, width + y.shape[1] + 1)
    if not len(x):
        return sums
    size = max(1, _BATCH // (x[0].numel() * side**2))
    for part, wanted in zip(x.split(size), y.split(size), strict=True):
        seen = F.unfold(part, side, padding=side // 2).transpose(0, 1).flatten(1)
        one = torch.ones_like(seen[:1])
        sums += torch.cat([seen, one]) @ torch.cat([seen, wanted.transpose(0, 1).flatten(1), one]).mT
    return sums


def moments(sums: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Means of neighborhoods and of ``y``, and covariances of neighborhoods, and of these with ``y``."""
    width = len(sums) - 1
    sums = sums / sums[-1, -1]
    mean = sums[-1, :-1]
    centered = sums[:-1, :-1] - torch.outer(mean[:width], mean)
    return mean[:width], mean[width:], centered[:, :width], centered[:, width:]
