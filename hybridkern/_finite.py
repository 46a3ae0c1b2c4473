"""Values that are not finite, named."""

from __future__ import annotations

import torch
from torch import Tensor


def readable(x: Tensor) -> bool:
    """Whether the values of ``x`` can be looked at now, without waiting for a device and outside of any tracing."""
    return not torch.compiler.is_compiling() and x.is_cpu and is_plain(x)


def is_plain(x: Tensor) -> bool:
    """Whether ``x`` holds values of its own: no meta or fake tensor, none of those that ``torch.func`` wraps."""
    return type(x) in (Tensor, torch.nn.Parameter) and not (
        x.is_meta or torch._C._functorch.is_functorch_wrapped_tensor(x)
    )


def check_finite_values(name: str, x: Tensor, where: str = "") -> None:
    """Every value of ``x`` must be finite; waits for the device.

    Args:
        name: of the argument, for the error.
        x: any tensor.
        where: more for the error, such as what was not changed.

    Raises:
        ValueError: one is not; the message names the first, where it stands, and how many there are.
    """
    finite = x.isfinite()
    if finite.all():
        return
    index = tuple((~finite).nonzero()[0].tolist())
    count = int((~finite).sum())
    more = "" if count == 1 else f" and {count - 1} more of {x.numel()} values"
    raise ValueError(f"{name}: got {x[index].item()} {_place(index)}{more}, expected finite numbers only{where}")


def _place(index: tuple[int, ...]) -> str:
    if not index:
        return "in place 0"
    if len(index) > 2:
        return "at (" + ", ".join(map(str, index)) + ")"
    return f"in row {index[0]}" + (f", dimension {index[1]}" if len(index) > 1 else "")
