// One element of the diagonal Gaussian's log-density, without its constant -log(2 pi)/2, and its derivatives.
#pragma once

#include "elementary.h"

namespace hk::HK_ISA {

template <class V>
struct GaussianTerms {
  V log_p, slope_x, slope_log_scale;  // slope_mean = -slope_x
};

template <class V>
HK_INLINE GaussianTerms<V> gaussian_terms(V x, V mean, V log_scale) {
  const V inverse = exponential(-log_scale);
  const V z = (x - mean) * inverse;
  return {ScalarOf<V>(-0.5) * z * z - log_scale, -z * inverse, z * z - 1};
}

}  // namespace hk::HK_ISA
