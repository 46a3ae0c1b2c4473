"""One element of the spline: the formulas of csrc/rational_quadratic_spline/math.h, the bins a dimension of the tile.

Places are in fixed point, as there, so that sums of sizes are exact whatever their order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from hybridkern.ops._triton import math as hk


@triton.jit
def _fixed(value, WHOLE: tl.constexpr):
    # towards zero; what is no number becomes zero, and is carried along beside it
    number = tl.where(value == value, value, tl.zeros_like(value))
    if WHOLE > 2147483647:
        return number.to(tl.int64)
    else:
        return number.to(tl.int32)


@triton.jit
def square_root(value):
    """``sqrt``, rounded to nearest."""
    if value.dtype == tl.float64:
        return tl.sqrt(value)
    else:
        return tl.sqrt_rn(value)


@triton.jit
def exponentials(raw, is_bin, ZUKO: tl.constexpr, GAIN: tl.constexpr, INVERSE_CLIP: tl.constexpr):
    """What a softmax sums, up to a factor, and what the clip shrank the raw numbers by."""
    a = raw * GAIN
    if ZUKO:
        shrink = 1.0 / (tl.abs(a) * (2 * INVERSE_CLIP) + 1.0)
        e = hk.exponential(a * shrink)
    else:
        shrink = tl.zeros_like(a) + 1.0
        top = tl.max(tl.where(is_bin & (a == a), a, -float("inf")), axis=0, keep_dims=True)
        below = a - top
        lost = hk.sum_error(a, tl.zeros_like(a) - top, below)
        e = hk.exponential_of_negative(below)
        e += e * tl.where(below > -100.0, lost, tl.zeros_like(below))
    return tl.where(is_bin, e, tl.zeros_like(e)), shrink


@triton.jit
def sizes_of(e, is_bin, SHARE: tl.constexpr, FLOOR: tl.constexpr, WHOLE: tl.constexpr):
    """Sizes of the bins in fixed point, their sum, what that lacks of the whole, and one over the sum of ``e``."""
    per_sum = 1.0 / tl.sum(e, axis=0, keep_dims=True)
    size = _fixed(e * (per_sum * (SHARE * WHOLE)) + FLOOR * WHOLE, WHOLE)
    size = tl.where(is_bin, size, tl.zeros_like(size))
    total = tl.sum(size, axis=0, keep_dims=True)
    lost = (WHOLE - total).to(e.dtype) * (1 / WHOLE)
    return size, total, lost, per_sum


@triton.jit
def place_of(x, total, lost, MIDDLE: tl.constexpr, RANGE: tl.constexpr, WHOLE: tl.constexpr):
    """The place of ``x`` among the bins, and NaN where ``x`` is."""
    inside = hk.at_most(hk.at_least((x - MIDDLE) * (WHOLE / RANGE), -WHOLE / 2), WHOLE / 2)
    even = _fixed(inside, WHOLE) + WHOLE // 2
    place = even - _fixed(even.to(x.dtype) * lost, WHOLE)
    return tl.minimum(place, total), inside - inside


@triton.jit
def part_of(place, lost, WHOLE: tl.constexpr):
    """A place or size in fixed point as a part of the interval."""
    part = place.to(lost.dtype) * (1 / WHOLE)
    return part + part * lost


@triton.jit
def pick(here, values):
    """Of the bins the one where ``here`` is true."""
    return tl.sum(tl.where(here, values, tl.zeros_like(values)), axis=0, keep_dims=True)


@triton.jit
def knot(r, ZUKO: tl.constexpr, LEAST: tl.constexpr, BETA: tl.constexpr, INVERSE_CLIP: tl.constexpr):
    """The derivative at a knot, and the derivative of that in the raw parameter."""
    if ZUKO:
        shrink = 1.0 / (tl.abs(r) * INVERSE_CLIP + 1.0)
        d = hk.exponential(r * shrink)
        slope = d * shrink * shrink
    else:
        v = r * BETA
        q = hk.exponential_of_negative(-tl.abs(v))
        reciprocal = 1.0 / (q + 1.0)
        d = (hk.at_least(v, 0.0) + hk.log_one_plus(q)) * (1 / BETA) + LEAST
        slope = tl.where(v > 0, reciprocal, q * reciprocal)
    return d, slope


@triton.jit
def solve(v, rest, s, d0, d1):
    """Place in the bin and its complement, from the height and its complement."""
    unit = 1.0 / (d0 + d1 + s)
    double_s = 2.0 * s * unit
    q = d0 * unit * rest - d1 * unit * v
    sv = double_s * v
    sr = double_s * rest
    r = square_root(q * q + sv * sr)
    first = tl.where(q < 0, r - q, sv)
    second = tl.where(q < 0, sr, q + r)
    scale = 1.0 / (first + second)
    return first * scale, second * scale


@triton.jit
def turned(x, LOW: tl.constexpr, MIDDLE: tl.constexpr, RANGE: tl.constexpr):
    """By half the interval, and back into it."""
    far = x - MIDDLE
    turns = tl.floor(far * (1 / RANGE))
    rest = tl.fma(-turns, hk.splat(RANGE, turns), far)
    rest = tl.where(rest < 0, rest + RANGE, tl.where(rest >= RANGE, rest - RANGE, rest))
    return rest + LOW
