// One element of the diagonal Gaussian's log-density, without its constant -log(2 pi)/2, and its derivatives.
#pragma once

#include "../math/elementary.h"

namespace hk::HK_ISA {

template <class V>
struct GaussianTerms {
  V log_p, slope_x, slope_log_scale;  // slope_mean = -slope_x
};

// The halves keep x - mean from overflowing, and the bound keeps 0 * infinity away: beyond it z is 0 or overflows.
template <class V>
HK_INLINE GaussianTerms<V> gaussian_terms(V x, V mean, V log_scale) {
  constexpr ScalarOf<V> bound = sizeof(ScalarOf<V>) == 4 ? 87 : 708;
  constexpr ScalarOf<V> half = 0.5;
  const V inverse = exponential(at_most(-log_scale, bound));
  const V z = (x * half - mean * half) * (inverse * 2);
  return {-half * z * z - log_scale, -z * inverse, z * z - 1};
}

}  // namespace hk::HK_ISA
