"""Channels put in another order, scaled, or made of pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class _Permuted(torch.autograd.Function):
    """``x[:, order]`` whose backward pass is one gather, where autograd would add into zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        order, inverse = ctx.saved_tensors
        return permuted(grad, inverse, order), None, None


def permuted(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """``x[:, order]`` for a permutation ``order`` ``(C,)``, given the permutation that undoes it."""
    y: Tensor = _Permuted.apply(x, order, inverse)
    return y


def affine_channels(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``x * scale + shift`` in one pass; ``scale`` and ``shift`` broadcast to ``x``."""
    return torch.addcmul(shift, x, scale)


def squeezed(x: Tensor, factor: int) -> Tensor:
    """Blocks of ``factor`` x ``factor`` pixels as channels, those of an input channel side by side, row by row."""
    return F.pixel_unshuffle(x, factor)


def unsqueezed(x: Tensor, factor: int) -> Tensor:
    """Undoes :func:`squeezed`."""
    return F.pixel_shuffle(x, factor)
