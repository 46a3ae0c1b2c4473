"""Brings distribution parameters to the shapes that the kernels read: full, or shared by the whole batch."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern import _tensors


def broadcast_params(named: tuple[tuple[str, Tensor], ...], shape: torch.Size | tuple[int, ...]) -> list[Tensor]:
    """The parameters as views of shape ``(1, *shape[1:])`` if none of them varies over the batch, else of ``shape``.

    Raises:
        ValueError: a parameter does not broadcast to ``shape``.
    """
    shared = all(value.ndim < len(shape) or (value.ndim == len(shape) and value.shape[0] == 1) for _, value in named)
    target = (1, *shape[1:]) if shared else tuple(shape)
    return [_expand(name, value, target, shape) for name, value in named]


def _expand(name: str, value: Tensor, target: tuple[int, ...], shape: torch.Size | tuple[int, ...]) -> Tensor:
    if value.ndim == len(target) and value.shape == target:
        return value
    try:
        return value.expand(target)
    except RuntimeError:
        raise ValueError(
            f"{name}: got shape {_tensors.shape_text(value.shape)}, "
            f"expected one that broadcasts to {_tensors.shape_text(shape)}"
        ) from None
