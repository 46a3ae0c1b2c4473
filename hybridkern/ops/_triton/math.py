"""Elementary functions for the kernels: the formulas of csrc/math/elementary.h, in Triton.

float32 uses range reduction and polynomials rather than the hardware's approximations, whose relative error grows with
the argument (``ex2.approx`` of ``x * log2(e)`` loses a digit at ``x = 20``); float64 uses the target's ``exp`` and
``log``. Nothing here depends on how the compiler contracts a product and a sum, so that the interpreter, the compiled
code and the CPU kernels agree within an ulp or two. Coefficients: those of csrc (logarithm, arc tangent: Cephes).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def absolute(x):
    """``|x|``."""
    return tl.abs(x)


@triton.jit
def splat(value, x):
    """A constant in the shape and dtype of ``x``, exact in that dtype."""
    return tl.zeros_like(x) + value


@triton.jit
def at_most(x, bound):
    """``min(x, bound)``; a NaN in ``x`` stays."""
    return tl.where(x > bound, splat(bound, x), x)


@triton.jit
def at_least(x, bound):
    """``max(x, bound)``; a NaN in ``x`` stays."""
    return tl.where(x < bound, splat(bound, x), x)


@triton.jit
def with_sign_of(x, sign):
    """``|x|`` with the sign of ``sign``; a zero or NaN counts as positive."""
    return tl.where(sign < 0, -tl.abs(x), tl.abs(x))


@triton.jit
def times_sign_of(x, sign):
    """``-x`` where ``sign`` is negative, else ``x``."""
    return tl.where(sign < 0, -x, x)


@triton.jit
def _power_of_two(n):
    return ((n + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _exp_parts(x):
    # x = n*ln2 + r with |r| <= ln2/2; q = exp(r) - 1
    shifted = x * 1.44269504088896341 + 12582912.0  # 1.5 * 2^23: adding it rounds to an integer
    rounded = shifted - 12582912.0
    n = shifted.to(tl.int32, bitcast=True) - 0x4B400000
    r = (x - rounded * 0.693359375) - rounded * -2.12194440e-4
    p = 1.3814598003e-3 * r + 8.3687171244e-3
    p = p * r + 4.1668388072e-2
    p = p * r + 1.6666520630e-1
    p = p * r + 4.9999993448e-1
    return n, r + (r * r) * p


@triton.jit
def _scale_by_power(m, n):
    half = n >> 1
    return (m * _power_of_two(half)) * _power_of_two(n - half)


@triton.jit
def exponential(x):
    """``exp(x)``."""
    if x.dtype == tl.float64:
        return tl.exp(x)
    else:
        n, q = _exp_parts(at_least(at_most(x, 89.0), -104.0))
        return _scale_by_power(q + 1.0, n)


@triton.jit
def exponential_of_negative(x):
    """``exp(x)`` for ``x <= 0``."""
    if x.dtype == tl.float64:
        return tl.exp(x)
    else:
        n, q = _exp_parts(at_least(x, -104.0))
        return _scale_by_power(q + 1.0, n)


@triton.jit
def exponential_pair(x):
    """``exp(x) = high + low``, to about twice the precision of ``high`` in float32."""
    if x.dtype == tl.float64:
        return tl.exp(x), tl.zeros_like(x)
    else:
        n, q = _exp_parts(at_least(at_most(x, 89.0), -104.0))
        m = q + 1.0
        return _scale_by_power(m, n), _scale_by_power(q - (m - 1.0), n)


@triton.jit
def exponential_and_less_one(x):
    """``exp(x)`` and ``exp(x) - 1`` for ``x <= 0``, the latter to full relative precision near 0."""
    if x.dtype == tl.float64:
        u = tl.exp(x)
        less = u - 1.0
        # below -1 the difference is precise, and the quotient is not where u underflows
        inner = (x > -1.0) & (u < 1.0)
        quotient = less * x / tl.log(tl.where(inner, u, splat(0.5, u)))  # Kahan
        return u, tl.where(inner, quotient, tl.where(u == 1.0, x, less))
    else:
        n, q = _exp_parts(at_least(x, -87.0))
        two_n = _power_of_two(n)
        return tl.where(x < -87.0, tl.zeros_like(x), two_n * q + two_n), two_n * q + (two_n - 1.0)


@triton.jit
def _log_reduced(k, f):
    # log(2^k * (1 + f)) for 1 + f in [sqrt(1/2), sqrt(2))
    z = f * f
    p = 7.0376836292e-2 * f + -1.1514610310e-1
    p = p * f + 1.1676998740e-1
    p = p * f + -1.2420140846e-1
    p = p * f + 1.4249322787e-1
    p = p * f + -1.6668057665e-1
    p = p * f + 2.0000714765e-1
    p = p * f + -2.4999993993e-1
    p = p * f + 3.3333331174e-1
    kf = k.to(tl.float32)
    tail = kf * -2.12194440e-4 + (z * f * p - 0.5 * z)
    return kf * 0.693359375 + (f + tail)


@triton.jit
def _significand(u):
    shifted = u.to(tl.int32, bitcast=True) - 0x3F3504F3
    return shifted >> 23, ((shifted & 0x007FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True)


@triton.jit
def logarithm(u):
    """``log(u)`` for normal finite ``u > 0``; NaN passes."""
    if u.dtype == tl.float64:
        return tl.log(u)
    else:
        k, m = _significand(u)
        return _log_reduced(k, (m - 1.0) + (u - u))


@triton.jit
def log_one_plus(y):
    """``log(1 + y)`` for finite ``y > -1``, to full relative precision near 0; NaN passes."""
    u = y + 1.0
    if y.dtype == tl.float64:
        return tl.log(u) + (y - (u - 1.0)) / u
    else:
        k, m = _significand(u)
        return _log_reduced(k, (m - 1.0) + (y - (u - 1.0)) * _power_of_two(-k))


@triton.jit
def hyperbolic_tangent(v):
    """``tanh(v)`` and its derivative, without ``1 - tanh**2``."""
    q, less_one = exponential_and_less_one(tl.abs(v) * -2.0)
    reciprocal = 1.0 / (q + 1.0)
    return with_sign_of(less_one * reciprocal, v), 4.0 * q * reciprocal * reciprocal


@triton.jit
def arc_tangent(x):
    """``atan(x)``."""
    t = tl.abs(x)
    large = t > 2.414213562373095048
    if x.dtype == tl.float64:
        middle = t > 0.66
    else:
        middle = t > 0.4142135623730950
    top = tl.where(large, splat(-1.0, t), tl.where(middle, t - 1.0, t))
    bottom = tl.where(large, t, tl.where(middle, t + 1.0, splat(1.0, t)))
    base = tl.where(large, splat(1.57079632679489662, t), splat(0.78539816339744831, t))
    base = tl.where(middle, base, tl.zeros_like(t))
    r = top / bottom
    z = r * r
    if x.dtype == tl.float64:
        p = -8.750608600031904122785e-1 * z + -1.615753718733365076637e1
        p = p * z + -7.500855792314704667340e1
        p = p * z + -1.228866684490136173410e2
        p = p * z + -6.485021904942025371773e1
        q = z + 2.485846490142306297962e1
        q = q * z + 1.650270098316988542046e2
        q = q * z + 4.328810604912902668951e2
        q = q * z + 4.853903996359136964868e2
        q = q * z + 1.945506571482613964425e2
        out = base + (z * (p / q) * r + r)
    else:
        p = 8.05374449538e-2 * z + -1.38776856032e-1
        p = p * z + 1.99777106478e-1
        p = p * z + -3.33329491539e-1
        out = base + (p * z * r + r)
    return tl.where(x < 0, -out, out)


@triton.jit
def round_even(x):
    """Round half to even."""
    if x.dtype == tl.float64:
        whole = 4503599627370496.0
    else:
        whole = 8388608.0
    t = tl.abs(x)
    return with_sign_of(tl.where(t < whole, (t + whole) - whole, t), x)


@triton.jit
def sum_error(a, b, total):
    """The rounding error of ``total = a + b`` (Knuth)."""
    back = total - a
    return (a - (total - back)) + (b - back)
