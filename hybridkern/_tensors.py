"""Argument checks shared by the operators: clear errors before anything is computed or written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
LOW = (torch.bfloat16, torch.float16)


def shape_text(shape: torch.Size | tuple[int, ...]) -> str:
    """``(64, 3, 8, 8)`` as users write it."""
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def check_tensor(name: str, value: object) -> None:
    """``value`` must be a floating-point tensor of a supported dtype."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a torch.Tensor")
    check_dense(name, value)
    if value.dtype not in FLOATS:
        raise TypeError(f"{name}: got dtype {value.dtype}, expected float32, float64, bfloat16 or float16")


def check_dense(name: str, value: Tensor) -> None:
    """``value`` must be an ordinary tensor: not sparse, not nested, not in a layout of oneDNN."""
    if value.layout is not torch.strided or value.is_nested:
        what = "a nested tensor" if value.is_nested else f"layout {value.layout}"
        raise TypeError(f"{name}: got {what}, expected an ordinary dense tensor, layout torch.strided")


def flag(name: str, value: object) -> bool:
    """``value``, which must be True or False, of Python or NumPy."""
    if value is not True and value is not False and type(value).__name__ not in ("bool", "bool_"):
        raise TypeError(f"{name}: got {value!r}, expected True or False")
    return bool(value)


def check_number(name: str, value: object, wanted: str = "a finite number", least: float = -math.inf) -> None:
    """``value`` must be a finite number, not below ``least``."""
    try:
        number = math.nan if isinstance(value, (str, bytes, Tensor)) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and number >= least):
        raise (ValueError if isinstance(value, (int, float)) else TypeError)(
            f"{name}: got {value!r}, expected {wanted}"
        )


def check_batched(name: str, value: object, at_least: int = 1) -> None:
    """``value`` must be a floating-point tensor with a batch dimension and at least ``at_least`` dimensions."""
    check_tensor(name, value)
    assert isinstance(value, Tensor)
    if value.ndim < at_least:
        wanted = "(B, *S)" if at_least == 1 else "(B, C, *S)"
        raise ValueError(f"{name}: got shape {shape_text(value.shape)}, expected {wanted}")


def check_width(name: str, value: object, width: int) -> None:
    """``value`` must be a tensor ``(B, width)``: what belongs to each dimension would be broadcast to others."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a torch.Tensor")
    if value.ndim != 2 or value.shape[1] != width:
        raise ValueError(f"{name}: got shape {shape_text(value.shape)}, expected (B, {width})")


def check_same_device(name: str, value: Tensor, x: Tensor, main: str = "x") -> None:
    """``value`` must lie on the device of ``x``, which the operator's caller knows as ``main``."""
    if not (value.is_cpu and x.is_cpu) and value.device != x.device:
        raise ValueError(f"{name}: got device {value.device}, expected {x.device}, the device of {main}")


def check_exactly(name: str, value: object, x: Tensor, *shape: int | str) -> None:
    """``value`` must have the dtype and device of ``x``, and this shape; a word stands for any size from 1 on."""
    check_tensor(name, value)
    assert isinstance(value, Tensor)
    if value.dtype is not x.dtype:
        raise TypeError(f"{name}: got dtype {value.dtype}, expected {x.dtype}, the dtype of x")
    check_same_device(name, value, x)
    fits = value.ndim == len(shape) and all(
        size >= 1 if isinstance(want, str) else size == want for size, want in zip(value.shape, shape, strict=True)
    )
    if not fits:
        # made here: a compiler would fix the sizes in it
        wanted = "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
        raise ValueError(f"{name}: got shape {shape_text(value.shape)}, expected {wanted}")


def check_not_wider(name: str, value: Tensor, x: Tensor, main: str = "x") -> None:
    """``value`` may have the dtype of ``x`` or, where ``x`` is float32, bfloat16 or float16."""
    if value.dtype is x.dtype or (x.dtype is torch.float32 and value.dtype in LOW):
        return
    also = ", bfloat16 or float16" if x.dtype is torch.float32 else ""
    raise TypeError(f"{name}: got dtype {value.dtype}, expected {x.dtype} (the dtype of {main}){also}")


def check_param(name: str, value: object, x: Tensor, main: str = "x") -> None:
    """``value`` must be a tensor on the device of ``x``, of its dtype or a lower one."""
    check_tensor(name, value)
    assert isinstance(value, Tensor)
    check_not_wider(name, value, x, main)
    check_same_device(name, value, x, main)


def has_autocast(device: str) -> bool:
    """Whether autocast is on for a type of device; there is none for meta tensors."""
    return device != "meta" and torch.is_autocast_enabled(device)


def autocast_input(x: Tensor) -> Tensor:
    """``x`` in float32 where autocast lowered it: under autocast the flow itself stays in float32."""
    if x.dtype in LOW and has_autocast(x.device.type):
        return x.float()
    return x


def total_dtype(x: Tensor, start: Tensor | None = None) -> torch.dtype:
    """Dtype of a per-example total (log-determinant, log-probability) over ``x``: at least float32, and ``start``'s."""
    own = torch.float64 if x.dtype is torch.float64 else torch.float32
    return own if start is None else torch.promote_types(own, start.dtype)


def drawn(
    draw: Callable[..., Tensor],
    shape: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
    generator: torch.Generator | None,
) -> Tensor:
    """Random numbers by ``torch.rand`` or ``torch.randn``.

    Called with a generator, be it ``None``, these take no symbols for sizes, as ``torch.compile`` has them.
    """
    if generator is None:
        return draw(shape, dtype=dtype, device=device)
    return draw(shape, dtype=dtype, device=device, generator=generator)
