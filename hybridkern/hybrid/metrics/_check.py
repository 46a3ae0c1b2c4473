"""Checks of the arguments of metrics."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern._values import can_look


def scores(name: str, values: Tensor) -> Tensor:
    """``values`` ``(N,)`` with ``N >= 1`` in float64, without gradient; infinities are scores, NaN is none.

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: another shape, no values, or a NaN.
    """
    if not isinstance(values, Tensor) or not values.is_floating_point():
        found = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"{name}: got {found}, expected a floating-point tensor")
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"{name}: got shape {tuple(values.shape)}, expected (N,) with at least one score")
    values = values.detach().double()
    if can_look() and values.isnan().any():
        row = int(values.isnan().nonzero()[0])
        raise ValueError(f"{name}: got nan in row {row}, expected numbers that can be ordered")
    return values


def probabilities(values: Tensor) -> Tensor:
    """``values`` ``(N, classes)`` in float64, each row summing to 1.

    Raises:
        TypeError, ValueError: no such tensor; a row whose sum is not 1 to 1e-3, in 16 bits to 2e-2, names itself.
    """
    if not isinstance(values, Tensor) or not values.is_floating_point():
        found = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"probabilities: got {found}, expected a floating-point tensor")
    if values.ndim != 2 or len(values) == 0 or values.shape[1] < 2:
        raise ValueError(f"probabilities: got shape {tuple(values.shape)}, expected (N, classes) with at least one row")
    tolerance = 1e-3 if values.dtype in (torch.float32, torch.float64) else 2e-2  # rows of bfloat16 miss 1 by 3e-3
    values = values.detach().double()
    wrong = ~(((values.sum(1) - 1).abs() <= tolerance) & (values >= 0).all(1))
    if can_look() and wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"probabilities: row {row} is {values[row].tolist()}, expected numbers from 0 to 1 of sum 1 (no logits)"
        )
    return values
