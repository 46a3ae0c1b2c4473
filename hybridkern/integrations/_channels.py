"""Channels put in another order, or made of pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

SMALL = 8192  # fewer numbers than these are permuted as fast by indexing


class _Permuted(torch.autograd.Function):
    """``x[:, order]`` whose backward pass is one gather, where autograd would add into zeros."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        return x.index_select(1, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        _, order, inverse = inputs
        ctx.save_for_backward(order, inverse)
        ctx.save_for_forward(order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        order, inverse = ctx.saved_tensors
        return permuted(grad, inverse, order), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: object) -> Tensor:
        (order,) = ctx.saved_tensors
        return tangent.index_select(1, order)


def permuted(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """``x[:, order]`` for a permutation ``order`` ``(C,)``, given the permutation that undoes it."""
    if torch.compiler.is_compiling() or not (x.requires_grad and torch.is_grad_enabled()):
        return x.index_select(1, order)
    y: Tensor = _Permuted.apply(x, order, inverse)
    return y


def squeezed(x: Tensor, factor: int) -> Tensor:
    """Blocks of ``factor`` x ``factor`` pixels as channels, those of an input channel side by side, row by row."""
    return F.pixel_unshuffle(x, factor)


def unsqueezed(x: Tensor, factor: int) -> Tensor:
    """Undoes :func:`squeezed`."""
    return F.pixel_shuffle(x, factor)
