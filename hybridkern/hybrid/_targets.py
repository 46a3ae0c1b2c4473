"""Real-valued targets and latents as every regression head takes them."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern._tensors import shape_text


def check_finite_values(name: str, x: Tensor) -> None:
    """Every value of ``x`` must be finite.

    Raises:
        ValueError: one is not; the message names the first and where it stands.
    """
    finite = x.isfinite()
    if finite.all():
        return
    index = tuple((~finite).nonzero()[0].tolist())
    place = "row " + str(index[0]) + (f", dimension {index[1]}" if len(index) > 1 else "") if index else "place 0"
    raise ValueError(f"{name}: got {x[index].item()} in {place}, expected finite numbers only")


def check_targets(y: Tensor, rows: int) -> None:
    """``y`` must be a floating-point tensor ``(rows,)``, on a CPU of finite values.

    Raises:
        TypeError: not a tensor, or of another kind of dtype.
        ValueError: another shape, or a value that is not finite. On a GPU and in compiled graphs the values are not
            looked at, since that would wait for them.
    """
    if not isinstance(y, Tensor) or not y.is_floating_point():
        found = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"y: got {found}, expected a floating-point tensor of real-valued targets")
    if y.shape != (rows,):
        raise ValueError(f"y: got shape {shape_text(y.shape)}, expected {shape_text((rows,))}")
    if y.is_cpu and not torch.compiler.is_compiling():
        check_finite_values("y", y)


def check_latents(z: Tensor, dim: int) -> None:
    """``z`` must be a floating-point tensor ``(B, dim)`` of finite values.

    Raises:
        TypeError: not a tensor, or of another kind of dtype.
        ValueError: another shape, or a value that is not finite (not looked at in compiled graphs).
    """
    if not isinstance(z, Tensor) or not z.is_floating_point():
        found = z.dtype if isinstance(z, Tensor) else type(z).__name__
        raise TypeError(f"z: got {found}, expected a floating-point tensor of latents")
    if z.ndim != 2 or z.shape[1] != dim:
        raise ValueError(f"z: got shape {shape_text(z.shape)}, expected (B, {dim})")
    if not torch.compiler.is_compiling():
        check_finite_values("z", z)
