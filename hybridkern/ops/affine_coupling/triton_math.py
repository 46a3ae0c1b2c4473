"""One element of the affine coupling: the formulas of csrc/affine_coupling/math.h.

The inverse of a form is a form of the same family (``S`` becomes ``1/S``, ``T`` changes its sign, "add after" becomes
"add before"), so that one forward and one backward serve both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import triton
import triton.language as tl

from hybridkern.ops._triton import math as hk

NONE, EXP, SIGMOID, TANH, ATAN, SOFTSIGN, SOFTPLUS, SIGMOID_EPS = range(8)
_EXP, _SIGMOID, _TANH, _ATAN, _SOFTPLUS, _SIGMOID_EPS = (
    tl.constexpr(i) for i in (EXP, SIGMOID, TANH, ATAN, SOFTPLUS, SIGMOID_EPS)
)


class Spec(NamedTuple):
    """``CouplingForm.code`` decoded, with the direction folded in; the numbers of the form."""

    scale_map: int
    negate: bool
    before: bool
    layout: int
    clamp: float
    offset: float
    eps: float
    gain: float
    shift_gain: float

    @property
    def has_scale(self) -> bool:
        """Whether the parameters hold a scale beside the shift."""
        return self.scale_map != NONE


def spec_of(code: int, numbers: Sequence[float]) -> Spec:
    """The family member that the kernels compute: ``y = x*S + T``, or ``(x + T)*S`` where ``before``."""
    clamp, offset, eps, gain, shift_gain = numbers[:5]
    scale_map, shift, inverse = code & 15, (code >> 4) & 15, bool((code >> 13) & 1)
    if scale_map == SIGMOID and eps != 0:
        scale_map = SIGMOID_EPS
    has_scale = scale_map != NONE
    sign = -1.0 if (shift == 2) != inverse else 1.0
    negate = has_scale and bool((code >> 12) & 1) != inverse
    before = has_scale and (shift != 0) != inverse
    numbers = (float(clamp), float(offset), float(eps), float(gain), float(shift_gain) * sign)
    return Spec(scale_map, negate, before, (code >> 8) & 15, *numbers)


@triton.jit
def _sigmoid_terms(v, EPS: tl.constexpr, HAS_EPS: tl.constexpr, NEGATE: tl.constexpr):
    q = hk.exponential_of_negative(-tl.abs(v))
    r = 1.0 / (q + 1.0)
    rq = q * r
    positive = v > 0
    sigma = tl.where(positive, r, rq)
    complement = tl.where(positive, rq, r)
    if HAS_EPS:
        s = sigma + EPS
        log_s = tl.where(positive, hk.log_one_plus(EPS - complement), hk.logarithm(s))
        derivative = sigma * complement / s
        if NEGATE:
            s = 1.0 / s
    else:
        log_s = hk.at_most(v, 0.0) - hk.log_one_plus(q)
        derivative = complement
        if NEGATE:
            s = tl.where(positive, q + 1.0, (q + 1.0) / q)
        else:
            s = sigma
    return log_s, s, derivative


@triton.jit
def _softplus_terms(v, EPS: tl.constexpr, NEGATE: tl.constexpr):
    q = hk.exponential_of_negative(-tl.abs(v))
    r = 1.0 / (q + 1.0)
    s = hk.at_least(v, 0.0) + hk.log_one_plus(q) + EPS
    log_s = tl.where(v < float("inf"), hk.logarithm(s), v)
    derivative = tl.where(v > 0, r, q * r) / s
    if EPS == 0:  # the logarithm of what tends to exp(v) is v: it must not run into that of 0
        log_s = tl.where(v < -40.0, v, log_s)
        derivative = tl.where(v < -40.0, 1.0, derivative)
    if NEGATE:
        s = 1.0 / s
    return log_s, s, derivative


@triton.jit
def scale_terms(
    a,
    MAP: tl.constexpr,
    NEGATE: tl.constexpr,
    CLAMP: tl.constexpr,
    OFFSET: tl.constexpr,
    EPS: tl.constexpr,
    GAIN: tl.constexpr,
):
    """``log S``, ``S`` and ``d log S/da``; the compiler drops what the caller does not use."""
    v = a * GAIN + OFFSET
    if MAP == _SIGMOID or MAP == _SIGMOID_EPS:  # noqa: SIM109
        log_s, s, slope = _sigmoid_terms(v, EPS, MAP == _SIGMOID_EPS, NEGATE)
        slope = slope * GAIN
    elif MAP == _SOFTPLUS:
        log_s, s, slope = _softplus_terms(v, EPS, NEGATE)
        slope = slope * GAIN
    else:
        if MAP == _EXP:
            log_s = v
            slope = hk.splat(GAIN, v)
        elif MAP == _TANH:
            tanh, sech_squared = hk.hyperbolic_tangent(v)
            log_s = tanh * CLAMP
            slope = sech_squared * (CLAMP * GAIN)
        elif MAP == _ATAN:
            log_s = hk.arc_tangent(v) * (CLAMP * 0.636)
            slope = (CLAMP * 0.636 * GAIN) / (v * v + 1.0)
        else:
            r = 1.0 / (tl.abs(v) / CLAMP + 1.0)
            log_s = tl.where(tl.abs(v) > 1e30, hk.with_sign_of(hk.splat(CLAMP, v), v), v * r)
            slope = r * r * GAIN
        if NEGATE:
            s = hk.exponential(-log_s)
        else:
            s = hk.exponential(log_s)
    if NEGATE:
        log_s = -log_s
        slope = -slope
    return log_s, s, slope
