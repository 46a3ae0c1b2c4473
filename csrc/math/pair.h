// Two vectors as one number. Long chains of dependent operations leave a processor waiting for results; two of them
// side by side fill the gaps. The mathematics is the same, element by element.
#pragma once

#include "elementary.h"

namespace hk::HK_ISA {

#if HK_LANES > 1

template <class V>
struct Two {
  V lo, hi;
};
using FloatPair = Two<Floats>;
using MaskPair = Two<Ints>;  // of lanes, as a comparison of vectors gives it

template <>
struct Lanes<FloatPair> {
  using Int = MaskPair;
  using Scalar = float;
  static constexpr int count = 2 * HK_LANES;
};

#define HK_PAIR_ARITHMETIC(op)                                                                       \
  HK_INLINE FloatPair operator op(FloatPair a, FloatPair b) { return {a.lo op b.lo, a.hi op b.hi}; } \
  HK_INLINE FloatPair operator op(FloatPair a, float b) { return {a.lo op b, a.hi op b}; }           \
  HK_INLINE FloatPair operator op(float a, FloatPair b) { return {a op b.lo, a op b.hi}; }           \
  HK_INLINE FloatPair& operator op## = (FloatPair & a, FloatPair b) { return a = a op b; }
HK_PAIR_ARITHMETIC(+)
HK_PAIR_ARITHMETIC(-)
HK_PAIR_ARITHMETIC(*)
HK_PAIR_ARITHMETIC(/)
#undef HK_PAIR_ARITHMETIC
HK_INLINE FloatPair operator-(FloatPair a) { return {-a.lo, -a.hi}; }

#define HK_PAIR_COMPARISON(op)                                                                      \
  HK_INLINE MaskPair operator op(FloatPair a, FloatPair b) { return {a.lo op b.lo, a.hi op b.hi}; } \
  HK_INLINE MaskPair operator op(FloatPair a, float b) { return {a.lo op b, a.hi op b}; }
HK_PAIR_COMPARISON(<)
HK_PAIR_COMPARISON(<=)
HK_PAIR_COMPARISON(>)
HK_PAIR_COMPARISON(==)
#undef HK_PAIR_COMPARISON

HK_INLINE FloatPair select(MaskPair mask, FloatPair yes, FloatPair no) {
  return {select(mask.lo, yes.lo, no.lo), select(mask.hi, yes.hi, no.hi)};
}
template <>
HK_INLINE FloatPair splat<FloatPair>(float value) {
  return {splat<Floats>(value), splat<Floats>(value)};
}

HK_INLINE FloatPair at_most(FloatPair value, float bound) {
  return {at_most(value.lo, bound), at_most(value.hi, bound)};
}
HK_INLINE FloatPair at_least(FloatPair value, float bound) {
  return {at_least(value.lo, bound), at_least(value.hi, bound)};
}
HK_INLINE FloatPair absolute(FloatPair x) { return {absolute(x.lo), absolute(x.hi)}; }
HK_INLINE FloatPair minus_absolute(FloatPair x) { return {minus_absolute(x.lo), minus_absolute(x.hi)}; }
HK_INLINE FloatPair with_sign_of(FloatPair x, FloatPair sign) {
  return {with_sign_of(x.lo, sign.lo), with_sign_of(x.hi, sign.hi)};
}
HK_INLINE FloatPair times_sign_of(FloatPair x, FloatPair sign) {
  return {times_sign_of(x.lo, sign.lo), times_sign_of(x.hi, sign.hi)};
}
HK_INLINE FloatPair product_error(FloatPair a, FloatPair b, FloatPair p) {
  return {product_error(a.lo, b.lo, p.lo), product_error(a.hi, b.hi, p.hi)};
}
HK_INLINE bool any_at_most(FloatPair x, float bound) { return any_at_most(x.lo, bound) || any_at_most(x.hi, bound); }
HK_INLINE void store_past_cache(float* to, FloatPair value) {
  store_past_cache(to, value.lo);
  store_past_cache(to + HK_LANES, value.hi);
}
HK_INLINE float sum_lanes(FloatPair x) { return sum_lanes(x.lo + x.hi); }

HK_INLINE FloatPair exponential_of_negative(FloatPair x) {
  return {exponential_of_negative(x.lo), exponential_of_negative(x.hi)};
}
HK_INLINE void exponential_of_negative(FloatPair x, FloatPair& exp_x, FloatPair& expm1_x) {
  exponential_of_negative(x.lo, exp_x.lo, expm1_x.lo);
  exponential_of_negative(x.hi, exp_x.hi, expm1_x.hi);
}
HK_INLINE void exponential_pair(FloatPair x, FloatPair& high, FloatPair& low) {
  exponential_pair(x.lo, high.lo, low.lo);
  exponential_pair(x.hi, high.hi, low.hi);
}
HK_INLINE FloatPair logarithm(FloatPair x) { return {logarithm(x.lo), logarithm(x.hi)}; }

#endif

}  // namespace hk::HK_ISA
