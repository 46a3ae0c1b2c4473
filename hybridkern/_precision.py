"""The precision in which the reference backend computes, and the form in which it returns."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern._values import transformed

_NO_FLOAT64 = ("mps",)


def wide(x: Tensor, *, like: Tensor | None = None) -> Tensor:
    """``x`` in float64, so that the reference is the ground truth of float32 results; float32 where there is none."""
    device = (x if like is None else like).device.type
    return x.to(torch.float32 if device in _NO_FLOAT64 else torch.float64)


def like(value: Tensor, x: Tensor) -> Tensor:
    """``value`` in the dtype and the strides of ``torch.empty_like(x)``, whatever strides its arguments had.

    Inside a transform of ``torch.func`` or forward mode strides say nothing, and nothing batched can be written to what
    is not.
    """
    if transformed():
        return value.to(x.dtype)
    return torch.empty_like(x).copy_(value)


def per_example(value: Tensor) -> Tensor:
    """Sum over all dimensions but the batch, of which there may be none."""
    return value.flatten(1).sum(1) if value.ndim > 1 else value
