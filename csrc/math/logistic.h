// One element of the discretized logistic's log-probability and its derivatives.
//
// u = |x - mean|/s, h = bin/(2s), w = u - h, b = u + h:  P = (1 - exp(-2h)) * sigma(-w) * sigma(b).
//   d log P/du         = expm1(-2u) * sigma(w) * sigma(b)
//   d log P/d log s    = w*sigma(w) - b*sigma(-b) - 2h/expm1(2h)
// Every exponential has an argument that is not positive, and no two nearly equal numbers are subtracted but
// |x - mean| and bin/2, whose difference is formed with the rounding error of x - mean carried along.
#pragma once

#include "elementary.h"

namespace hk::HK_ISA {

template <class T>
struct BinNumbers {
  T width, half, half_low;  // half + half_low = width/2, to twice the precision
  T log_width;
};

// log P = linear + log(ratio), with 0 < ratio <= 1 of moderate size: sums of log P need one logarithm for many.
template <class V>
struct LogisticTerms {
  V linear, ratio;
  V slope_x, slope_log_scale;  // derivatives of log P; slope_mean = -slope_x
};

template <bool Gradients, class V>
HK_INLINE LogisticTerms<V> logistic_terms(V x, V mean, V log_scale, const BinNumbers<ScalarOf<V>>& bin) {
  using T = ScalarOf<V>;
  constexpr bool single = sizeof(T) == 4;
  constexpr T huge = single ? T(1e37) : T(1e300);

  // x - mean = difference + error exactly (Knuth's two-sum)
  const V difference = x - mean;
  const V back = difference - x;
  const V rounding = (x - (difference - back)) - (mean + back);
  const V distance = absolute(difference);
  const V error = select(distance < huge, select(difference < 0, -rounding, rounding), V{});

  // Beyond exp(69) the mass of the bin is 0 or 1 to every digit; the bound keeps 0 * infinity away.
  V inverse, inverse_low;
  exponential_pair(at_most(-log_scale, 69), inverse, inverse_low);

  const V inside = (distance - bin.half) + (error - bin.half_low);
  const V w = inside * inverse;
  const V low = product_error(inside, inverse, w) + inside * inverse_low;
  const V w_low = select(absolute(w) < huge, low, V{});
  const V b = (distance + bin.half) * inverse;
  const auto outside = w > 0;

  const V exp_w = exponential(-absolute(w)) * (1 - select(outside, w_low, -w_low));  // exp(-|w|)
  const V exp_b = exponential(-b);

  const V h2 = bin.width * inverse;
  V exp_h, expm1_h;
  exponential_of_negative(-h2, exp_h, expm1_h);
  const V per_width = select(h2 < T(1e-30), splat<V>(1), -expm1_h / h2);  // (1 - exp(-2h)) / 2h
  const auto narrow = h2 < 1;                                              // then log 2h = log(bin) - log s exactly

  LogisticTerms<V> out;
  out.linear = select(narrow, bin.log_width - log_scale, V{}) - select(outside, w + w_low, V{});
  out.ratio = select(narrow, per_width, -expm1_h) / ((exp_w + 1) * (exp_b + 1));
  if constexpr (Gradients) {
    const V one_over = 1 / (exp_w + 1), one_over_b = 1 / (exp_b + 1);
    const V sigma_w = select(outside, one_over, exp_w * one_over);
    V unused, expm1_u;
    exponential_of_negative((distance + error) * inverse * -2, unused, expm1_u);
    out.slope_x = with_sign_of(expm1_u * one_over_b * sigma_w * inverse, -difference);
    out.slope_log_scale =
        at_most(w, huge) * sigma_w - at_most(b, 200) * (exp_b * one_over_b) - exp_h / per_width;
  }
  return out;
}

}  // namespace hk::HK_ISA
