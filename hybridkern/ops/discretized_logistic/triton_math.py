"""One element of the discretized logistic: the formulas of csrc/discretized_logistic/math.h, where they are explained.

``P = mass * exp(-outside) / rest``. The numbers of the bin are its width, its half in the working precision, and what
that half lacks.
"""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl

from hybridkern.ops._triton import math as hk


def bin_numbers(width: float, single: bool) -> dict[str, float]:
    """Constants of the kernels for bins of that width."""
    round_ = (lambda value: float(np.float32(value))) if single else float
    half = round_(width / 2)
    return {"BIN": round_(width), "HALF": half, "HALF_LOW": round_(width / 2 - half)}


@triton.jit
def _huge(x):
    if x.dtype == tl.float64:
        return hk.splat(1e300, x)
    else:
        return hk.splat(1e37, x)


@triton.jit
def scale_part(log_scale, BIN: tl.constexpr):
    """``1/s`` as high and low part, ``exp(-2h)``, ``1 - exp(-2h)``, and ``log s`` beyond the bound of 60."""
    bounded = hk.at_most(log_scale, 60.0)
    inverse, inverse_low = hk.exponential_pair(hk.at_most(-bounded, 69.0))
    exp_h, less_one = hk.exponential_and_less_one(inverse * -BIN)
    return inverse, inverse_low, exp_h, -less_one, log_scale - bounded


@triton.jit
def _offset_part(x, mean, HALF: tl.constexpr, HALF_LOW: tl.constexpr):
    difference = x - mean
    distance = tl.abs(difference)
    finite = distance < _huge(x)
    nothing = tl.zeros_like(x)
    error = tl.where(finite, hk.times_sign_of(hk.sum_error(x, -mean, difference), difference), nothing)
    near = distance - HALF
    rest = (error - HALF_LOW) + tl.where(finite, hk.sum_error(distance, hk.splat(-HALF, x), near), nothing)
    inside = near + rest
    inside_low = tl.where(finite, rest - (inside - near), nothing)
    return difference, distance, error, inside, inside_low


@triton.jit
def logistic_value(x, mean, inverse, HALF: tl.constexpr, HALF_LOW: tl.constexpr):
    """``outside``, ``exp(-|w|)`` and ``rest``."""
    _, distance, _, inside, _ = _offset_part(x, mean, HALF, HALF_LOW)
    w = inside * inverse
    exp_w = hk.exponential_of_negative(-tl.abs(w))
    exp_b = hk.exponential_of_negative(-((distance + HALF) * inverse))
    return hk.at_least(w, 0.0), exp_w, exp_w * exp_b + (exp_w + exp_b) + 1.0


@triton.jit
def logistic_log_prob(x, mean, log_scale, BIN: tl.constexpr, HALF: tl.constexpr, HALF_LOW: tl.constexpr):
    """The log-probability of one element."""
    inverse, _, _, mass, excess = scale_part(log_scale, BIN)
    outside, _, rest = logistic_value(x, mean, inverse, HALF, HALF_LOW)
    return hk.logarithm(mass / rest) - (outside + excess)


@triton.jit
def logistic_slopes(
    x, mean, inverse, inverse_low, exp_h, mass, BIN: tl.constexpr, HALF: tl.constexpr, HALF_LOW: tl.constexpr
):
    """``outside`` as high and low part, ``1/rest``, and the derivatives of ``log P`` in ``x`` and ``log_scale``."""
    difference, distance, error, inside, inside_low = _offset_part(x, mean, HALF, HALF_LOW)
    huge = _huge(x)
    w = inside * inverse
    # sigma(w) is as precise, relatively, as w is absolutely: hence the product's error
    low = tl.fma(inside, inverse, -w) + (inside * inverse_low + inside_low * inverse)
    w_low = tl.where(tl.abs(w) < huge, low, tl.zeros_like(w))
    is_outside = w > 0
    exp_w = hk.exponential_of_negative(-tl.abs(w)) * (1.0 - hk.times_sign_of(w_low, w))
    exp_u, less_u = hk.exponential_and_less_one((distance + error) * inverse * -2.0)
    exp_b = exp_w * tl.where(is_outside, exp_h, exp_u)
    b = hk.at_most((distance + HALF) * inverse, 200.0)
    one_w = exp_w + 1.0
    one_b = exp_b + 1.0
    per_all = 1.0 / (one_w * one_b * mass)
    per_rest = per_all * mass
    sigma_w = tl.where(is_outside, one_b, exp_w * one_b) * per_rest
    per_b = one_w * per_rest
    narrow = inverse * BIN * exp_h * (per_all * one_w * one_b)
    slope_x = hk.with_sign_of(less_u * per_b * sigma_w * inverse, -difference)
    slope_x = tl.where(slope_x != slope_x, less_u * per_b * sigma_w * inverse, slope_x)
    bounded = tl.where(w > huge, huge, w)
    slope_log_scale = bounded * sigma_w - b * (exp_b * per_b) - narrow
    return hk.at_least(w, 0.0), tl.where(is_outside, w_low, tl.zeros_like(w)), per_rest, slope_x, slope_log_scale
