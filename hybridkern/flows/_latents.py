"""The latents of a multi-scale flow as one vector an example, level by level, channels last."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hybridkern.transforms import squeeze, unsqueeze

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


def through_levels(x: Tensor, levels: int, run: Callable[[int, Tensor], Tensor]) -> list[Tensor]:
    """The latents that levels, ``run(i, squeezed)``, make of images ``(B, C, H, W)``; all but the last pass half on."""
    latents: list[Tensor] = []
    for i in range(levels):
        state = run(i, torch.cat(squeeze(x), 1))
        if i + 1 < levels:
            x, state = state.chunk(2, 1)
        latents.append(state)
    return latents


def back_through_levels(latents: Sequence[Tensor], undo: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Undoes :func:`through_levels`, where ``undo(i, ...)`` undoes ``run(i, ...)``."""
    state = latents[-1]
    for i in reversed(range(len(latents))):
        x = unsqueeze(*undo(i, state).chunk(2, 1))
        state = torch.cat([x, latents[i - 1]], 1) if i else x
    return state
