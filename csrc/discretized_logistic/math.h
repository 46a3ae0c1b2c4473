// One element of the discretized logistic's log-probability and its derivatives.
//
// u = |x - mean|/s, h = bin/(2s), w = u - h, b = u + h:  P = (1 - exp(-2h)) * sigma(-w) * sigma(b)
//   d log P/du      = expm1(-2u) * sigma(w) * sigma(b)
//   d log P/d log s = w*sigma(w) - b*sigma(-b) - 2h/expm1(2h)
// Every exponential has an argument that is not positive, and no two nearly equal numbers are subtracted but
// |x - mean| and bin/2, whose difference is formed with the rounding error of x - mean carried along.
#pragma once

#include "../math/elementary.h"

namespace hk::HK_ISA {

template <class T>
struct BinNumbers {
  T width, half, half_low;  // half + half_low = width/2, to twice the precision
};

// What depends on the scale alone; a batch that shares its parameters computes it once.
template <class V>
struct ScalePart {
  V inverse, inverse_low;  // 1/s to about twice the precision
  V exp_h, mass;           // exp(-2h), 1 - exp(-2h)
  V excess;                // log s beyond the bound below: subtracted from log P
};

// Scales outside exp(-69)..exp(60) are taken at the bound: beyond it the bin holds everything, or P is proportional
// to 1/s, to every digit. With bins between 1e-6 and 1e6, which the operators demand, nothing over- or underflows.
template <class V>
HK_INLINE ScalePart<V> scale_part(V log_scale, const BinNumbers<ScalarOf<V>>& bin) {
  ScalePart<V> out;
  const V bounded = at_most(log_scale, 60);
  out.excess = log_scale - bounded;
  exponential_pair(at_most(-bounded, 69), out.inverse, out.inverse_low);
  V expm1_h;
  exponential_of_negative(-bin.width * out.inverse, out.exp_h, expm1_h);
  out.mass = -expm1_h;
  return out;
}

// |x - mean| - bin/2 = inside + inside_low, and distance + error = |x - mean|, both to about twice the precision
// (Knuth's two-sum, twice).
template <class V>
struct Offset {
  V difference, distance, error;
  V inside, inside_low;
};

template <class V>
HK_INLINE V difference_error(V a, V b, V difference) {
  const V back = difference - a;
  return (a - (difference - back)) - (b + back);
}

template <class V>
HK_INLINE Offset<V> offset_part(V x, V mean, const BinNumbers<ScalarOf<V>>& bin) {
  constexpr ScalarOf<V> huge = sizeof(ScalarOf<V>) == 4 ? 1e37f : 1e300;
  Offset<V> out;
  out.difference = x - mean;
  out.distance = absolute(out.difference);
  const V rounding = difference_error(x, mean, out.difference);
  out.error = select(out.distance < huge, times_sign_of(rounding, out.difference), V{});
  const V near = out.distance - bin.half;
  const V rest = (out.error - bin.half_low) +
                 select(out.distance < huge, difference_error(out.distance, splat<V>(bin.half), near), V{});
  out.inside = near + rest;
  out.inside_low = select(out.distance < huge, rest - (out.inside - near), V{});
  return out;
}

// P = mass * exp(-outside) / rest, where outside = max(w, 0) and rest = (1 + exp(-|w|)) * (1 + exp(-b)).
template <class V>
struct LogisticValue {
  V outside, exp_w, rest, rest_less_one;
};

template <class V>
HK_INLINE LogisticValue<V> logistic_value(V x, V mean, const ScalePart<V>& scale, const BinNumbers<ScalarOf<V>>& bin) {
  const Offset<V> o = offset_part(x, mean, bin);
  const V w = o.inside * scale.inverse;
  const V exp_w = exponential_of_negative(minus_absolute(w));
  const V exp_b = exponential_of_negative((-bin.half - o.distance) * scale.inverse);
  const V less_one = exp_w * exp_b + (exp_w + exp_b);
  return {at_least(w, 0), exp_w, less_one + 1, less_one};
}

template <class V>
struct LogisticSlopes {
  V outside, exp_w, per_rest;  // as above; per_rest = 1/rest
  V slope_x, slope_log_scale;  // derivatives of log P; slope_mean = -slope_x
};

template <class V>
HK_INLINE LogisticSlopes<V> logistic_slopes(V x, V mean, const ScalePart<V>& scale,
                                            const BinNumbers<ScalarOf<V>>& bin) {
  constexpr ScalarOf<V> huge = sizeof(ScalarOf<V>) == 4 ? 1e37f : 1e300;
  const Offset<V> o = offset_part(x, mean, bin);
  const V w = o.inside * scale.inverse;
  // sigma(w) is as precise, relatively, as w is absolutely: hence the product's error
  const V low =
      product_error(o.inside, scale.inverse, w) + (o.inside * scale.inverse_low + o.inside_low * scale.inverse);
  const V w_low = select(absolute(w) < huge, low, V{});
  const auto is_outside = w > 0;
  const V exp_w = exponential_of_negative(minus_absolute(w)) * (1 - times_sign_of(w_low, w));

  V exp_u, expm1_u;  // of -2u
  exponential_of_negative((o.distance + o.error) * scale.inverse * -2, exp_u, expm1_u);
  // exp(-b) = exp(-|w|) * exp(-2 min(u, h))
  const V exp_b = exp_w * select(is_outside, scale.exp_h, exp_u);
  const V b = at_most((o.distance + bin.half) * scale.inverse, 200);

  const V one_w = exp_w + 1, one_b = exp_b + 1;
  const V per_all = 1 / (one_w * one_b * scale.mass);
  const V per_rest = per_all * scale.mass;
  const V sigma_w = select(is_outside, one_b, exp_w * one_b) * per_rest;                 // sigma(w)
  const V per_b = one_w * per_rest;                                                      // sigma(b)
  const V narrow = bin.width * scale.inverse * scale.exp_h * (per_all * one_w * one_b);  // 2h/expm1(2h)

  LogisticSlopes<V> out;
  out.outside = at_least(w, 0);
  out.exp_w = exp_w;
  out.per_rest = per_rest;
  out.slope_x = with_sign_of(expm1_u * per_b * sigma_w * scale.inverse, -o.difference);
  out.slope_log_scale = at_most(w, huge) * sigma_w - b * (exp_b * per_b) - narrow;
  return out;
}

}  // namespace hk::HK_ISA
