"""The latents of a multi-scale flow as one vector an example, level by level, channels last."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Shape = tuple[int, int, int]


def latent_shapes(shape: Sequence[int], levels: int) -> list[Shape]:
    """``(C, H, W)`` of what each level gives, for images of ``shape``; the last level gives both of its halves."""
    c, h, w = shape
    shapes = [(2 * c * 2**i, h >> (i + 1), w >> (i + 1)) for i in range(levels)]
    shapes[-1] = (2 * shapes[-1][0], *shapes[-1][1:])
    return shapes


def join_latents(latents: Sequence[Tensor]) -> Tensor:
    """Images ``(B, C_i, H_i, W_i)`` -> ``(B, D)``; one copy."""
    return torch.cat([latent.permute(0, 2, 3, 1).flatten(1) for latent in latents], 1)


def split_latents(z: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """Undoes :func:`join_latents`: views of ``z``."""
    parts = z.split([math.prod(shape) for shape in shapes], 1)
    return [part.unflatten(1, (h, w, c)).permute(0, 3, 1, 2) for part, (c, h, w) in zip(parts, shapes, strict=True)]
