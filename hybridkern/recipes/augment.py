"""Augmentation of images that lie in memory as rows."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def shifted(x: Tensor, shape: tuple[int, ...], probability: float) -> Tensor:
    """Each image moved, with this probability, by -1, 0 or 1 pixel down and across; what comes in at an edge is 0.

    All nine moves are equally probable, the one by nothing among them. The draws are of torch's global generator.

    Args:
        x: images ``(B, prod(shape))``.
        shape: ``(H, W)`` or ``(H, W, C)``, in the order that ``x`` holds them.
        probability: of moving an image, from 0 to 1.

    Returns:
        ``(B, prod(shape))``, values in the units of ``x``.
    """
    height, width = shape[:2]
    padded = F.pad(x.view(len(x), height, width, math.prod(shape[2:])), (0, 0, 1, 1, 1, 1))
    moves = torch.rand(len(x), 1) < probability
    top, left = torch.where(moves, torch.randint(3, (len(x), 2)), 1).unbind(1)
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    example = torch.arange(len(x))[:, None, None]
    return padded[example, rows[:, :, None], columns[:, None, :]].view_as(x)


def translated(x: Tensor, shape: tuple[int, ...], moves: Tensor) -> Tensor:
    """Each image moved by a number of pixels of its own; what comes in at an edge repeats the edge.

    Args:
        x: images ``(B, prod(shape))``, any dtype.
        shape: ``(H, W)`` or ``(H, W, C)``, in the order that ``x`` holds them.
        moves: integers ``(B, 2)``, pixels down and to the right, each smaller in magnitude than the image is large.

    Returns:
        ``(B, prod(shape))``, dtype and units of ``x``.
    """
    height, width = shape[:2]
    down, right = moves.unbind(1)
    rows = (torch.arange(height) - down[:, None]).clamp_(0, height - 1)
    columns = (torch.arange(width) - right[:, None]).clamp_(0, width - 1)
    pixels = x.view(len(x), height * width, math.prod(shape[2:]))
    index = (rows[:, :, None] * width + columns[:, None, :]).view(len(x), -1)
    return pixels.gather(1, index[:, :, None].expand_as(pixels)).view_as(x)
