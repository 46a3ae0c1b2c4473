"""Rules that the contracts of the registered operators share; sizes may be symbolic.

A symbolic size becomes a guard or a check at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hybridkern import _tensors

Sizes = Sequence[Any]
Contracts = Mapping[str, Callable[..., None]]  # by the names of an operator's parts


def _fits(size: Any, wanted: Any, text: Callable[[], str]) -> bool:
    if isinstance(size, int) and isinstance(wanted, int):
        return size == wanted
    torch._check(size == wanted, text)
    return True


def shape(name: str, value: Tensor, wanted: Sizes) -> None:
    """``value`` has the sizes ``wanted``; ValueError otherwise."""

    def text() -> str:
        return f"{name}: got shape {_tensors.shape_text(value.shape)}, expected {_tensors.shape_text(tuple(wanted))}"

    own = value.shape
    if type(value) is Tensor and own == wanted:
        return  # of an ordinary tensor no size is symbolic
    if len(own) != len(wanted) or not all(_fits(s, w, text) for s, w in zip(own, wanted, strict=True)):
        raise ValueError(text())


def at_least(name: str, value: Tensor, dims: int) -> None:
    """``value`` has that many dimensions at least."""
    if value.ndim < dims:
        raise ValueError(f"{name}: got shape {_tensors.shape_text(value.shape)}, expected {dims} dimensions at least")


def same(name: str, value: Tensor, main: str, x: Tensor, wanted: Sizes | None = None) -> None:
    """Of the dtype and device of ``x``, and of its shape or another one."""
    if value.dtype is not x.dtype:
        raise TypeError(f"{name}: got dtype {value.dtype}, expected {x.dtype}, the dtype of {main}")
    _tensors.check_same_device(name, value, x, main)
    shape(name, value, x.shape if wanted is None else wanted)


def per_example(name: str, value: Tensor | None, main: str, x: Tensor) -> None:
    """``value``, if it is given, holds a float32 or float64 number for each example of ``x``."""
    if value is None:
        return
    if value.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name}: got dtype {value.dtype}, expected float32 or float64")
    _tensors.check_same_device(name, value, x, main)
    shape(name, value, x.shape[:1])


def working(name: str, x: Tensor, dims: int) -> None:
    """``x`` is float32 or float64 and has ``dims`` dimensions."""
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name}: got dtype {x.dtype}, expected float32 or float64")
    if x.ndim != dims:
        raise ValueError(f"{name}: got shape {_tensors.shape_text(x.shape)}, expected {dims} dimensions")
