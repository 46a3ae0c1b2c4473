"""Real-valued targets and latents as every regression head takes them."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern._finite import check_finite_values, readable
from hybridkern._tensors import shape_text


def check_targets(y: Tensor, rows: int) -> None:
    """``y`` must be a floating-point tensor ``(rows,)``, on a CPU of finite values.

    Raises:
        TypeError: not a tensor, or of another kind of dtype.
        ValueError: another shape, or a value that is not finite. On a GPU, in compiled graphs and under ``vmap``
            the values are not looked at, since that would wait for them or cannot be.
    """
    if not isinstance(y, Tensor) or not y.is_floating_point():
        found = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"y: got {found}, expected a floating-point tensor of real-valued targets")
    if y.shape != (rows,):
        raise ValueError(f"y: got shape {shape_text(y.shape)}, expected {shape_text((rows,))}")
    if readable(y):
        check_finite_values("y", y)


def check_latents(z: Tensor, dim: int) -> None:
    """``z`` must be a floating-point tensor ``(B, dim)``, on a CPU of finite values.

    Raises:
        TypeError: not a tensor, or of another kind of dtype.
        ValueError: another shape, or a value that is not finite; the values are not looked at where
            :func:`check_targets` does not look at them.
    """
    if not isinstance(z, Tensor) or not z.is_floating_point():
        found = z.dtype if isinstance(z, Tensor) else type(z).__name__
        raise TypeError(f"z: got {found}, expected a floating-point tensor of latents")
    if z.ndim != 2 or z.shape[1] != dim:
        raise ValueError(f"z: got shape {shape_text(z.shape)}, expected (B, {dim})")
    if readable(z):
        check_finite_values("z", z)


def features_of(z: Tensor, dim: int, bias: bool) -> Tensor:
    """Latents ``(B, dim)`` in float64, with a column of ones behind them where there is a bias.

    Raises:
        TypeError, ValueError: what :func:`check_latents` raises.
    """
    check_latents(z, dim)
    z = z.double()
    return torch.cat([z, z.new_ones(len(z), 1)], 1) if bias else z
