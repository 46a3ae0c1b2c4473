"""The spline operator as the layers of other libraries need it: which splines it knows, and when their numbers fit."""

from __future__ import annotations

from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hybridkern.integrations._layer import WIDE
from hybridkern.ops import rational_quadratic_spline
from hybridkern.ops.rational_quadratic_spline.form import (
    MOST_BINS,
    SplineForm,
    check_bins,
    check_tails,
    interval_of,
)

_LOW = (torch.bfloat16, torch.float16)


class Spline(NamedTuple):
    """A spline that the operator computes.

    Attributes:
        form: from raw numbers to knots.
        bins: of each element.
        bound: as the operator takes it.
        interval: its ends; outside of it the operator changes nothing.
        tails: ``"linear"``, ``"box"`` or ``"circular"``.
        raw: how many raw numbers an element has.
    """

    form: SplineForm
    bins: int
    bound: float | tuple[float, float]
    interval: tuple[float, float]
    tails: str
    raw: int


def known_spline(bins: Any, bound: Any, tails: str, **form: Any) -> Spline | str:
    """The spline with these numbers, or in words why the operator does not compute it.

    Args:
        bins: of each element.
        bound: half the width of the interval, or its ends.
        tails: as the operator names them.
        form: arguments of :class:`~hybridkern.ops.SplineForm`.
    """
    ends = bound if isinstance(bound, tuple) else (bound,)
    numbers = [value for name, value in form.items() if name not in ("scheme", "identity")]
    if not all(isinstance(value, Real) for value in (bins, *ends, *numbers)):
        return "some of its settings are not plain numbers"
    interval = bound if isinstance(bound, tuple) else float(bound)
    plain: dict[str, Any] = {k: v if isinstance(v, (str, bool)) else float(v) for k, v in form.items()}
    try:
        made = SplineForm(**plain)
        count, own = check_bins(int(bins), made), interval_of(interval)
        return Spline(made, count, interval, own, check_tails(tails), made.parameters(count, tails))
    except (TypeError, ValueError) as error:
        return f"hybridkern has no spline with these settings, or it needs 2 to {MOST_BINS} bins ({error})"


def by_element(x: Tensor, params: object, count: int) -> Tensor | None:
    """``params`` as the operator takes them with ``x``; ``None`` where it does not fit.

    Args:
        x: values ``(B, D)`` or ``(B, C, *S)``.
        params: what a network gave: ``count`` numbers for each element, ``(B, D*count)`` or ``(B, D, count)`` for
            ``x`` of two dimensions, ``(B, C*count, *S)`` for others.
        count: raw numbers of an element.
    """
    if not isinstance(params, Tensor) or x.dtype not in WIDE or x.ndim < 2 or params.device != x.device:
        return None
    if params.dtype is not x.dtype and not (x.dtype is torch.float32 and params.dtype in _LOW):
        return None
    shape = x.shape
    if not x.numel() or not params.ndim or params.shape[0] != shape[0] or params.numel() != x.numel() * count:
        return None
    if len(shape) == 2:
        return params.reshape(*shape, count)
    return params if params.shape == (shape[0], shape[1] * count, *shape[2:]) else None


def spline(
    x: Tensor, params: Tensor, kind: Spline, inverse: bool, log_det: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``kind`` on every element of ``x``, and ``log_det`` ``(B,)`` plus its own; see :func:`by_element`."""
    return rational_quadratic_spline(
        x, params, log_det, spline=kind.form, bins=kind.bins, bound=kind.bound, tails=kind.tails, inverse=inverse
    )


def scaled_spline(
    x: Tensor, params: Tensor, kind: Spline, inverse: bool, bound: Tensor | None, log_det: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """:func:`spline` on ``[-bound, bound]``, a positive number for each feature, in place of the interval of ``kind``.

    Stretching both axes by one factor leaves the slopes as they are, so ``kind`` works on ``[-1, 1]`` then.
    """
    if bound is None:
        return spline(x, params, kind, inverse, log_det)
    y, total = spline(x / bound, params, kind, inverse, log_det)
    return y * bound, total


def within(x: Tensor, interval: tuple[float, float]) -> bool:
    """Whether every number lies in the interval and none is NaN; looks at them, as the libraries do."""
    least, most = torch.aminmax(x.detach())
    return bool(least >= interval[0]) and bool(most <= interval[1])
