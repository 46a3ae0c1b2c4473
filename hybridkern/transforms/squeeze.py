"""Space to depth: images as the pair of halves that a level of a flow works on, and back."""

from __future__ import annotations

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]


def squeeze(x: Tensor) -> Pair:
    """Blocks of 2x2 pixels become channels, written straight into the two halves of a level.

    The first half holds the upper row of each block and the second the lower one, left pixel before right.

    Args:
        x: ``(B, C, H, W)``, any strides; ``H`` and ``W`` even.

    Returns:
        The halves, ``(B, 2C, H/2, W/2)`` each, in channels_last memory format: one copy in all.
    """
    b, c, h, w = x.shape
    # rows, then (B, H/2, W/2, column of the block, C): what a channels_last half is in memory
    blocks = x.view(b, c, h // 2, 2, w // 2, 2).permute(3, 0, 2, 4, 5, 1)
    first, second = blocks.reshape(2, b, h // 2, w // 2, 2 * c).permute(0, 1, 4, 2, 3).unbind(0)
    return first, second


def unsqueeze(first: Tensor, second: Tensor) -> Tensor:
    """Undoes :func:`squeeze`: halves ``(B, 2C, h, w)`` -> ``(B, C, 2h, 2w)`` in channels_last memory format."""
    b, c, h, w = first.shape
    rows = [half.unflatten(1, (2, c // 2)).permute(0, 3, 4, 1, 2) for half in (first, second)]
    return torch.stack(rows, 2).reshape(b, 2 * h, 2 * w, c // 2).permute(0, 3, 1, 2)


def space_to_depth(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` -> ``(B, 4C, H/2, W/2)``, as ``pixel_unshuffle``, which leaves an empty batch as it is."""
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(b, 4 * c, h // 2, w // 2)


def depth_to_space(x: Tensor) -> Tensor:
    """Undoes :func:`space_to_depth`."""
    b, c, h, w = x.shape
    return x.reshape(b, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // 4, 2 * h, 2 * w)
