"""What the operators' autograd Functions share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch.autograd.function import once_differentiable as _torch_once_differentiable

from hybridkern._extension import nodes


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


_native = True


@contextmanager
def python_functions() -> Iterator[None]:
    """For tests: record every operator by its Python Function inside the block."""
    global _native
    before, _native = _native, False
    try:
        yield
    finally:
        _native = before


def with_gradient(node: str, function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """A function of the arguments of ``function.apply`` that records the operator for the backward pass.

    A Python Function costs about 20 us, forward and backward, in calls alone; the C++ node of that name, where it was
    built for this torch, a third of it. The node hands back calls that it does not serve (tensor subclasses, other
    devices, dispatch modes, functional transforms), and ``torch.compile`` traces the Python one.
    """
    python: Callable[..., Any] = function.apply
    native = getattr(nodes.module, node, None)
    if native is None:
        return python

    def run(*args: Any) -> Any:
        if _native and not torch.compiler.is_compiling():
            out = native(*args)
            if out is not None:
                return out
        return python(*args)

    return run
