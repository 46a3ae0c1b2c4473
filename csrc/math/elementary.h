// Elementary functions, branch-free, within about one unit in the last place; NaN and infinities as IEEE says.
//
// float: range reduction and minimax polynomials (logarithm and arc tangent with the coefficients of Cephes,
//        S. Moshier).
// double: the C library, one element at a time.
#pragma once

#include <cmath>

#include "lanes.h"

namespace hk::HK_ISA {

// ---- float, scalar or vector -------------------------------------------------------------------------------------

// x = n*ln2 + r with |r| <= ln2/2; q = exp(r) - 1.
template <class V>
struct ExpParts {
  V n, shifted;  // shifted: n in the low bits of its significand
  V q;
};

constexpr float shifter = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer

template <class V>
HK_INLINE ExpParts<V> exp_parts(V x) {
  const V shifted = x * 1.44269504088896341f + shifter;
  const V n = shifted - shifter;
  const V r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  // minimax for (exp(r) - 1 - r)/r^2: exp(r) errs by 4e-9
  V p = splat<V>(1.3814598003e-3f);
  p = p * r + 8.3687171244e-3f;
  p = p * r + 4.1668388072e-2f;
  p = p * r + 1.6666520630e-1f;
  p = p * r + 4.9999993448e-1f;
  return {n, shifted, r + (r * r) * p};
}

template <class V>
HK_INLINE IntOf<V> integer_of(const ExpParts<V>& e) {
  return bits_as<IntOf<V>>(e.shifted) - bits_as<IntOf<V>>(splat<V>(shifter));
}

// 2^n for -126 <= n <= 127.
template <class V>
HK_INLINE V power_of_two(IntOf<V> n) {
  return bits_as<V>((n + 127) << 23);
}

// m * 2^n for -252 <= n <= 254, rounding once where the result is subnormal.
template <class V>
HK_INLINE V scale_by_power(V m, const ExpParts<V>& e) {
#if HK_LANES == 16
  if constexpr (Lanes<V>::count == 16) return bits_as<V>(_mm512_scalef_ps(bits_as<__m512>(m), bits_as<__m512>(e.n)));
#endif
  const IntOf<V> n = integer_of(e), half = n >> 1;
  return (m * power_of_two<V>(half)) * power_of_two<V>(n - half);
}

// The bounds keep n in range: exp(-104) is below the smallest subnormal, exp(89) above the largest float.
template <class V>
HK_INLINE V float_exp(V x) {
  const ExpParts<V> e = exp_parts(at_least(at_most(x, 89.0f), -104.0f));
  return scale_by_power<V>(e.q + 1.0f, e);
}

// exp(x) for x <= 0.
template <class V>
HK_INLINE V float_exp_of_negative(V x) {
  const ExpParts<V> e = exp_parts(at_least(x, -104.0f));
  return scale_by_power<V>(e.q + 1.0f, e);
}

// exp(x) for |x| <= 87, where nothing overflows or underflows. The bits of `shifted` above those of n leave on the
// left.
template <class V>
HK_INLINE V float_exp_of_moderate(V x) {
  const ExpParts<V> e = exp_parts(x);
  const V two_n = bits_as<V>((bits_as<IntOf<V>>(e.shifted) << 23) + (127 << 23));
  return two_n * e.q + two_n;
}

template <class V>
HK_INLINE void float_exp_pair(V x, V& high, V& low) {
  const ExpParts<V> e = exp_parts(x);
  const V m = e.q + 1.0f;
  high = scale_by_power<V>(m, e);
  low = scale_by_power<V>(e.q - (m - 1.0f), e);
}

// exp(x) and exp(x) - 1 for x <= 0, the latter to full relative precision near 0. Without an instruction that scales
// by any power of two, exp(x) is 0 below exp(-87).
template <class V>
HK_INLINE void float_exp_of_negative(V x, V& exp_x, V& expm1_x) {
#if HK_LANES == 16
  if constexpr (Lanes<V>::count == 16) {
    const ExpParts<V> e = exp_parts(at_least(x, -104.0f));
    const V two_n = scale_by_power(splat<V>(1.0f), e);
    exp_x = two_n * e.q + two_n;
    expm1_x = two_n * e.q + (two_n - 1.0f);
    return;
  }
#endif
  const ExpParts<V> e = exp_parts(at_least(x, -87.0f));
  const V two_n = power_of_two<V>(integer_of(e));
  exp_x = select(x < -87.0f, splat<V>(0.0f), two_n * e.q + two_n);
  expm1_x = two_n * e.q + (two_n - 1.0f);
}

// log(2^k * (1 + f)) for 1 + f in [sqrt(1/2), sqrt(2)).
template <class V>
HK_INLINE V float_log_reduced(IntOf<V> k, V f) {
  const V z = f * f;
  V p = splat<V>(7.0376836292e-2f);
  p = p * f + -1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f + -1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f + -1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f + -2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  V kf;
  if constexpr (Lanes<V>::count == 1)
    kf = static_cast<V>(k);
  else
    kf = __builtin_convertvector(k, V);
  const V tail = kf * -2.12194440e-4f + (z * f * p - 0.5f * z);
  return kf * 0.693359375f + (f + tail);
}

// u = 2^k * m with m in [sqrt(1/2), sqrt(2)), for normal finite u > 0.
template <class V>
HK_INLINE V float_significand(V u, IntOf<V>& k) {
  const IntOf<V> shifted = bits_as<IntOf<V>>(u) - 0x3f3504f3;
  k = shifted >> 23;
  return bits_as<V>((shifted & 0x007fffff) + 0x3f3504f3);
}

// log(u) for normal finite u > 0; NaN passes (through u - u).
template <class V>
HK_INLINE V float_log(V u) {
  IntOf<V> k;
  const V m = float_significand(u, k);
  return float_log_reduced<V>(k, (m - 1.0f) + (u - u));
}

// log(1 + y) for finite y > -1: the rounding error of 1 + y is put back; NaN passes.
template <class V>
HK_INLINE V float_log_one_plus(V y) {
  IntOf<V> k;
  const V u = y + 1.0f, m = float_significand(u, k);
  return float_log_reduced<V>(k, (m - 1.0f) + (y - (u - 1.0f)) * power_of_two<V>(-k));
}

template <class V>
HK_INLINE V float_atan(V x) {
  const V t = absolute(x);
  const auto large = t > 2.414213562373095f, middle = t > 0.4142135623730950f;
  const V top = select(large, splat<V>(-1.0f), select(middle, t - 1.0f, t));
  const V bottom = select(large, t, select(middle, t + 1.0f, splat<V>(1.0f)));
  const V base =
      select(large, splat<V>(1.57079632679489662f), select(middle, splat<V>(0.78539816339744831f), splat<V>(0.0f)));
  const V r = top / bottom, z = r * r;
  V p = splat<V>(8.05374449538e-2f);
  p = p * z - 1.38776856032e-1f;
  p = p * z + 1.99777106478e-1f;
  p = p * z - 3.33329491539e-1f;
  return with_sign_of(base + (p * z * r + r), x);
}

// ---- the names the formulas use ----------------------------------------------------------------------------------

template <class V>
HK_INLINE V exponential(V x) {
  return float_exp(x);
}
HK_INLINE double exponential(double x) { return std::exp(x); }

// exp(x) for x <= 0.
template <class V>
HK_INLINE V exponential_of_negative(V x) {
  return float_exp_of_negative(x);
}
HK_INLINE double exponential_of_negative(double x) { return std::exp(x); }

// exp(x) for |x| <= 87; NaN passes.
template <class V>
HK_INLINE V exponential_of_moderate(V x) {
  return float_exp_of_moderate(x);
}
HK_INLINE double exponential_of_moderate(double x) { return std::exp(x); }

// exp(x) = high + low to about twice the precision of high; |x| <= 87.
template <class V>
HK_INLINE void exponential_pair(V x, V& high, V& low) {
  float_exp_pair(x, high, low);
}
HK_INLINE void exponential_pair(double x, double& high, double& low) {
  high = std::exp(x);
  low = 0;
}

template <class V>
HK_INLINE void exponential_of_negative(V x, V& exp_x, V& expm1_x) {
  float_exp_of_negative(x, exp_x, expm1_x);
}
HK_INLINE void exponential_of_negative(double x, double& exp_x, double& expm1_x) {
  exp_x = std::exp(x);
  expm1_x = std::expm1(x);
}

// log(u) for normal finite u > 0; NaN passes.
template <class V>
HK_INLINE V logarithm(V u) {
  return float_log(u);
}
HK_INLINE double logarithm(double u) { return std::log(u); }

// log(1 + y) for finite y > -1, to full relative precision near 0; NaN passes.
template <class V>
HK_INLINE V log_one_plus(V y) {
  return float_log_one_plus(y);
}
HK_INLINE double log_one_plus(double y) { return std::log1p(y); }

template <class V>
HK_INLINE V arc_tangent(V x) {
  return float_atan(x);
}
HK_INLINE double arc_tangent(double x) { return std::atan(x); }

// Round half to even.
template <class V>
HK_INLINE V round_even(V x) {
  constexpr ScalarOf<V> whole = sizeof(ScalarOf<V>) == 4 ? 8388608.0f : 4503599627370496.0;  // 2^23, 2^52
  const V t = absolute(x);
  return with_sign_of(select(t < whole, (t + whole) - whole, t), x);
}

}  // namespace hk::HK_ISA
