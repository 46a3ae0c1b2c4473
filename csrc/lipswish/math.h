// One element of lipswish and clipswish, and their derivatives, in x and in b = softplus(beta).
//
// With s = sigmoid(b x): lipswish is k x s. clipswish adds -k x (1 - s), whose derivatives are those of x s but for
// -k in x.
#pragma once

#include "../math/elementary.h"

namespace hk::HK_ISA {

template <class V>
struct Swish {
  V s, rest;  // sigmoid(b x) and 1 - sigmoid(b x)
  V slope;    // of the sigmoid: s (1 - s)
};

template <class V>
HK_INLINE Swish<V> swish(V x, ScalarOf<V> b) {
  const V z = x * b;
  const V e = exponential_of_negative(minus_absolute(z));
  const V large = 1 / (1 + e), small = e * large;
  const auto positive = z >= 0;
  return {select(positive, large, small), select(positive, small, large), large * small};
}

// d(x s)/dx.
template <class V>
HK_INLINE V swish_slope(V x, ScalarOf<V> b, const Swish<V>& at) {
  return at.s + x * b * at.slope;
}

// d(x s)/db. The order keeps x^2 from overflowing where the sigmoid is flat.
template <class V>
HK_INLINE V swish_slope_b(V x, const Swish<V>& at) {
  return x * (x * at.slope);
}

// d2(x s)/dx2, d2(x s)/(dx db), d2(x s)/db2.
template <class V>
struct SwishCurves {
  V xx, xb, bb;
};

template <class V>
HK_INLINE SwishCurves<V> swish_curves(V x, ScalarOf<V> b, const Swish<V>& at) {
  const V bend = at.rest - at.s, xs = x * at.slope;  // bend: 1 - 2 s
  const V xsb = xs * (2 + x * b * bend);
  return {b * at.slope * (2 + x * b * bend), xsb, x * (x * (xs * bend))};
}

}  // namespace hk::HK_ISA
