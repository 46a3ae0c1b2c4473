"""Brings distribution parameters to the shapes that the kernels read: full, or shared by the whole batch."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern.ops import _check


def broadcast_param(name: str, value: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """``value`` as a view of shape ``shape``, or ``(1, *shape[1:])`` where it does not vary over the batch.

    Raises:
        ValueError: ``value`` does not broadcast to ``shape``.
    """
    own = value.shape
    if own == shape:
        return value
    target = tuple(shape)
    if len(own) < len(target) or own[0] == 1:
        target = (1, *target[1:])
    try:
        return value.expand(target)
    except RuntimeError:
        raise ValueError(
            f"{name}: got shape {_check.shape_text(own)}, expected one that broadcasts to {_check.shape_text(shape)}"
        ) from None
