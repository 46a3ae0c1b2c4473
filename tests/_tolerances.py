"""The one table of numerical tolerances, and the comparison that reads it.

Every comparison is with float64 numbers computed by NumPy. An expected number comes with its *magnitude*: its absolute
value, or, where it is the result of a cancellation that no arithmetic of the working precision can avoid, the sum of
the absolute values of the terms that cancel. The error allowed is ``relative * magnitude``; quantities on a log scale
and gradients may use ``absolute`` where that is larger. Results in bfloat16 and float16 are float32 results rounded
once: they may differ by one unit in the last place more than float32 results.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch


class Tolerance(NamedTuple):
    """Allowed error: relative to the magnitude, or absolute for log quantities and gradients."""

    relative: float
    absolute: float


TOLERANCES = {
    torch.float32: Tolerance(relative=2e-6, absolute=1e-6),
    torch.float64: Tolerance(relative=1e-12, absolute=1e-12),
}
# Recovering x from y cancels twice; allowed is this many times the table's relative error of the terms.
ROUND_TRIP_FACTOR = 4.0


class Expected(NamedTuple):
    """An exact result, its magnitude, and whether the absolute tolerance applies to it."""

    value: np.ndarray
    magnitude: np.ndarray
    log_scale: bool


def exactly(value: np.ndarray) -> Expected:
    """A result without cancellation: its error is relative to itself."""
    return Expected(value, np.abs(value), False)


def log_quantity(value: np.ndarray, magnitude: np.ndarray | None = None) -> Expected:
    """A log-probability, log-determinant or gradient."""
    return Expected(value, np.abs(value) if magnitude is None else magnitude, True)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Values of a tensor of any dtype in float64."""
    return tensor.detach().double().cpu().numpy()


def unit_in_last_place(value: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """Spacing of ``dtype`` at ``value``: of the binade that holds it, or of the subnormals."""
    info = torch.finfo(dtype)
    exponent = np.floor(np.log2(np.maximum(np.abs(value), info.smallest_normal)))
    return np.exp2(exponent) * info.eps


def allowed_error(expected: Expected, dtype: torch.dtype) -> np.ndarray:
    """Largest error that the table allows for a result of this dtype."""
    low = dtype in (torch.bfloat16, torch.float16)
    tolerance = TOLERANCES[torch.float32 if low else dtype]
    allowed = tolerance.relative * expected.magnitude
    if expected.log_scale:
        allowed = np.maximum(allowed, tolerance.absolute)
    # below the smallest normal number a result may round to a neighbouring subnormal, or to zero
    allowed = np.maximum(allowed, torch.finfo(dtype).smallest_normal)
    return allowed + unit_in_last_place(expected.value, dtype) if low else allowed


def assert_matches(got: torch.Tensor, expected: Expected, what: str = "result") -> None:
    """Fail, naming the worst element, unless every element of ``got`` is within the table's tolerance."""
    value = to_numpy(got)
    assert value.shape == expected.value.shape, f"{what}: shape {value.shape}, expected {expected.value.shape}"
    allowed = allowed_error(expected, got.dtype)
    with np.errstate(invalid="ignore"):
        error = np.abs(value - expected.value)
        bad = ~((error <= allowed) | (value == expected.value))
    if bad.any():
        ratio = np.where(bad, np.nan_to_num(error / allowed, nan=np.inf, posinf=np.inf), 0.0)
        worst = np.unravel_index(np.argmax(ratio), ratio.shape)
        index = tuple(int(i) for i in worst)
        raise AssertionError(
            f"{what}: {int(bad.sum())} of {bad.size} elements out of tolerance; worst at {index}: got "
            f"{value[worst]!r}, expected {expected.value[worst]!r}, error {error[worst]:.3e}, "
            f"allowed {np.broadcast_to(allowed, error.shape)[worst]:.3e}"
        )
