"""The rational-quadratic spline in plain PyTorch.

In a bin of width ``w`` and height ``h``, with the derivatives ``d0`` and ``d1`` at its ends, ``s = h / w``,
``t = (x - x0) / w`` and ``u = 1 - t``, the formulas are written such that they hold sums of positive numbers only:

    D = s (t^2 + u^2) + (d0 + d1) t u                 y = y0 + h (s t^2 + d0 t u) / D
    Q = d1 t^2 + 2 s t u + d0 u^2                     dy/dx = s^2 Q / D^2

and for the inverse, with ``v = (y - y0) / h`` and ``q = d0 (1 - v) - d1 v``,

    r = sqrt(q^2 + 4 s^2 v (1 - v)),   t : u = 2 s v : q + r,  or, where q < 0,  r - q : 2 s (1 - v).

That is the root in the libraries' form, ``2c / (-b - sqrt(b^2 - 4ac))``, after ``b^2 - 4ac`` is simplified.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hybridkern._precision import like, per_example, wide
from hybridkern._tensors import total_dtype
from hybridkern.ops._bounds import log_sigmoid
from hybridkern.ops.rational_quadratic_spline.form import Spline


class Bin(NamedTuple):
    """The bin that an element falls into."""

    x0: Tensor
    w: Tensor
    y0: Tensor
    h: Tensor
    d0: Tensor
    d1: Tensor


def by_element(params: Tensor, x: Tensor, count: int) -> Tensor:
    """Raw parameters, the ``count`` numbers of an element in the last dimension."""
    if x.ndim == 2:
        return params
    apart: Tensor = params.unflatten(1, (x.shape[1], count))
    return apart.movedim(2, -1)


def _clip(v: Tensor, bound: float) -> Tensor:
    return v / (1 + v.abs() / bound)


def _sizes(raw: Tensor, spline: Spline, least: float) -> Tensor:
    """Widths or heights of the bins."""
    a = spline.gain * raw
    if spline.is_zuko:
        a = _clip(a, -0.5 * math.log(spline.least))
    share = torch.softmax(a, -1)
    return (spline.high - spline.low) * (least + (1 - least * spline.bins) * share)


def _edges(sizes: Tensor, spline: Spline) -> Tensor:
    """The ``K + 1`` edges of the bins; the outer ones are the bounds."""
    inner = spline.low + sizes[..., :-1].cumsum(-1)
    ends = [inner.new_full((*inner.shape[:-1], 1), value) for value in (spline.low, spline.high)]
    return torch.cat((ends[0], inner, ends[1]), -1)


def _derivatives(raw: Tensor, spline: Spline) -> Tensor:
    """Derivatives at the ``K + 1`` knots."""
    if spline.is_zuko:
        d = torch.exp(_clip(raw, -math.log(spline.least)))
    else:
        d = spline.least - log_sigmoid(-spline.beta * raw) / spline.beta
    if spline.derivatives == spline.bins:  # circular: the last knot is the first one
        return torch.cat((d, d[..., :1]), -1)
    if spline.derivatives == spline.bins - 1:
        end = d.new_ones((*d.shape[:-1], 1))
        return torch.cat((end, d, end), -1)
    return d


def _bin(x: Tensor, raw: Tensor, spline: Spline) -> Bin:
    widths = _sizes(raw[..., : spline.bins], spline, spline.min_width)
    heights = _sizes(raw[..., spline.bins : 2 * spline.bins], spline, spline.min_height)
    across, up = _edges(widths, spline), _edges(heights, spline)
    slopes = _derivatives(raw[..., 2 * spline.bins :], spline)
    known = up if spline.inverse else across
    k = (x.detach().unsqueeze(-1) >= known.detach()[..., 1:-1]).sum(-1, keepdim=True)

    def at(values: Tensor, index: Tensor) -> Tensor:
        return values.expand(*index.shape[:-1], values.shape[-1]).gather(-1, index).squeeze(-1)

    x0, x1, y0, y1 = at(across, k), at(across, k + 1), at(up, k), at(up, k + 1)
    return Bin(x0, x1 - x0, y0, y1 - y0, at(slopes, k), at(slopes, k + 1))


def _forward(x: Tensor, b: Bin) -> tuple[Tensor, Tensor]:
    t, s = (x - b.x0) / b.w, b.h / b.w
    below = s * t * t + b.d0 * t * (1 - t)
    y = b.y0 + b.h * below / _denominator(t, 1 - t, s, b)
    return y, _log_slope(t, 1 - t, s, b)


def _denominator(t: Tensor, u: Tensor, s: Tensor, b: Bin) -> Tensor:
    return s * (t * t + u * u) + (b.d0 + b.d1) * t * u


def _log_slope(t: Tensor, u: Tensor, s: Tensor, b: Bin) -> Tensor:
    q = b.d1 * t * t + 2 * s * t * u + b.d0 * u * u
    return 2 * torch.log(s) + torch.log(q) - 2 * torch.log(_denominator(t, u, s, b))


def _inverse(y: Tensor, b: Bin) -> tuple[Tensor, Tensor]:
    v, s = (y - b.y0) / b.h, b.h / b.w
    q = b.d0 * (1 - v) - b.d1 * v
    r = torch.sqrt(q * q + 4 * s * s * v * (1 - v))
    first = torch.where(q < 0, r - q, 2 * s * v)
    second = torch.where(q < 0, 2 * s * (1 - v), q + r)
    t, u = first / (first + second), second / (first + second)
    return b.x0 + b.w * t, -_log_slope(t, u, s, b)


def _turned(x: Tensor, spline: Spline) -> Tensor:
    """Shifted by half the interval, and brought back into it."""
    middle, width = 0.5 * (spline.low + spline.high), spline.high - spline.low
    return spline.low + torch.remainder(x - middle, width)


def elementwise(x: Tensor, raw: Tensor, spline: Spline) -> tuple[Tensor, Tensor]:
    """The spline and the log of its derivative; ``raw`` as :func:`by_element` gives it."""
    if spline.wraps and not spline.inverse:
        x = _turned(x, spline)
    outside = (x < spline.low) | (x > spline.high)
    # where the formula is not used it must be finite, and so must its derivatives
    inner = torch.where(outside, spline.low, x)
    y, log_slope = (_inverse if spline.inverse else _forward)(inner, _bin(inner, raw, spline))
    y, log_slope = torch.where(outside, x, y), torch.where(outside, 0.0, log_slope)
    return (_turned(y, spline) if spline.wraps and spline.inverse else y), log_slope


def rational_quadratic_spline(
    x: Tensor, params: Tensor, log_det: Tensor | None, spline: Spline
) -> tuple[Tensor, Tensor]:
    """See :func:`hybridkern.ops.rational_quadratic_spline`; ``params`` has a batch axis; all arguments are valid."""
    y, log_slope = elementwise(wide(x), wide(by_element(params, x, spline.parameters)), spline)
    total = per_example(log_slope)
    if log_det is None:
        return like(y, x), total.to(total_dtype(x))
    return like(y, x), (wide(log_det) + total).to(total_dtype(x, log_det))
