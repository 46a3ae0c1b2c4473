"""Finds the layer where a flow's numbers stop being finite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


class NonFiniteError(ArithmeticError):
    """A layer gave NaN or infinity; the message names it."""


def _bad(value: object) -> str | None:
    """``"NaN"`` or ``"infinity"`` if a tensor inside ``value`` holds one."""
    if isinstance(value, Tensor):
        if not value.is_floating_point() or bool(torch.isfinite(value).all()):
            return None
        return "NaN" if bool(torch.isnan(value).any()) else "infinity"
    if isinstance(value, (list, tuple)):
        return next((found for item in value if (found := _bad(item))), None)
    return None


def _cause(module: nn.Module, args: tuple[Any, ...]) -> str:
    for name, value in module.named_parameters():
        if found := _bad(value):
            return f": its parameter {name!r} holds {found}"
    if found := _bad(args):
        return f": its input already holds {found}, and no layer made it"
    largest = max((a.detach().abs().max().item() for a in args if isinstance(a, Tensor) and a.numel()), default=0.0)
    return f" from finite parameters and input (largest magnitude of the input: {largest:.3g})"


def _hook(name: str, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
    if found := _bad(output):
        raise NonFiniteError(f"layer {name!r} ({type(module).__name__}) gave {found}{_cause(module, args)}")


@contextmanager
def check_finite(flow: nn.Module) -> Iterator[None]:
    """Inside the ``with`` block, stop at the first layer of ``flow`` whose output is not finite and name it.

    A layer is any submodule, down to single activations, in either direction of the flow, its base distribution
    included. For searching errors: every layer's output is read once more, and the device waited for. The flow
    itself must run uncompiled inside the block.

    Args:
        flow: any module.

    Raises:
        NonFiniteError: from the forward pass, naming the layer, what it gave and, where it shows, why (a parameter
            or an input that was not finite already).

    >>> import torch
    >>> from hybridkern.flows import RealNVP
    >>> flow = RealNVP(2, layers=2, hidden=4)
    >>> with check_finite(flow):
    ...     _ = flow.log_prob(torch.zeros(1, 2))
    """
    handles = [
        module.register_forward_hook(partial(_hook, name or "(the flow itself)"))
        for name, module in flow.named_modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
