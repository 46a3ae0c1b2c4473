"""What the registered parts of ``rational_quadratic_spline`` ask of their arguments."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hybridkern import _tensors
from hybridkern.ops import _rules
from hybridkern.ops._rules import Contracts
from hybridkern.ops.rational_quadratic_spline.form import LARGEST, MOST_BINS, Spline, decoded


def parameter_shape(x: Tensor, count: int) -> tuple[Any, ...]:
    """Shape of the raw parameters of ``x``, ``count`` numbers per element, with the batch axis."""
    shape = tuple(x.shape)
    return (*shape, count) if len(shape) == 2 else (shape[0], shape[1] * count, *shape[2:])


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name}: got {value:g}, expected a number from {least:g} to {most:g}")


def _decoded(code: int, *numbers: float) -> Spline:
    bins, scheme, tails = code & 255, code >> 8 & 3, code >> 10 & 3
    if not (0 <= code < 1 << 13 and 2 <= bins <= MOST_BINS and scheme <= 1 and tails <= 2):
        raise ValueError(f"code: got {code}, expected the code of SplineForm.spec")
    spline = decoded(code, *numbers)
    _within("low", spline.low, -LARGEST, LARGEST)
    _within("high", spline.high, spline.low + 0.99 / LARGEST, LARGEST)
    _within("min_width", spline.min_width, 0, (1 - 1e-12) / bins)
    _within("min_height", spline.min_height, 0, (1 - 1e-12) / bins)
    _within("least", spline.least, 1e-30 if spline.is_zuko else 0, 1 - 1e-12)
    _within("gain", spline.gain, -1e30, 1e30)
    _within("beta", spline.beta, 1e-30, 1e30)
    return spline


def _spline(x: Tensor, params: Tensor, code: int, *numbers: float) -> None:
    spline = _decoded(code, *numbers)
    _tensors.check_tensor("x", x)
    _rules.at_least("x", x, 2)
    _tensors.check_param("params", params, x)
    wanted = parameter_shape(x, spline.parameters)
    first = params.shape[0] if params.ndim else 0
    _rules.shape("params", params, wanted if not isinstance(first, int) or first != 1 else (1, *wanted[1:]))


def _forward(x: Tensor, params: Tensor, log_det: Tensor | None, code: int, *numbers: float) -> None:
    _spline(x, params, code, *numbers)
    _rules.per_example("log_det", log_det, "x", x)


def _backward(
    x: Tensor, params: Tensor, grad_y: Tensor | None, grad_log_det: Tensor | None, code: int, *numbers: float
) -> None:
    _spline(x, params, code, *numbers)
    if grad_y is not None:
        _rules.same("grad_y", grad_y, "x", x)
    _rules.per_example("grad_log_det", grad_log_det, "x", x)


CONTRACTS: Contracts = {"forward": _forward, "backward": _backward}
