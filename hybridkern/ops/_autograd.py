"""What the operators' autograd Functions share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.autograd.function import once_differentiable as _torch_once_differentiable


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """PyTorch's decorator of that name, at no cost where no second derivative can be asked for.

    A backward pass runs with gradients on only under ``create_graph=True``. PyTorch's wrapper enters ``no_grad`` in
    every case, which takes about 2 us: a tenth of the backward pass of a small input.
    """
    guarded = _torch_once_differentiable(backward)

    @wraps(backward)
    def wrapper(ctx: Any, *grads: Any) -> Any:
        return guarded(ctx, *grads) if torch.is_grad_enabled() else backward(ctx, *grads)

    return wrapper
