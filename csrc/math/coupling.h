// Affine coupling: the form's log s and its derivative, and one element of the forward and the backward pass.
//
// With raw scale a and raw shift t, every form is y = x*S + T or y = (x + T)*S with L = log S = +-map(gain*a + offset)
// and T = shift_gain*t, up to signs. The inverse of a form is a form of the same family: S becomes 1/S, T changes its
// sign, and "add after" becomes "add before". So there is one forward and one backward for both directions.
#pragma once

#include "elementary.h"

namespace hk::HK_ISA {

// Order of hybridkern/_coupling_form.py: SCALES.
enum class ScaleMap : int { none, exp, sigmoid, tanh, atan, softsign };
constexpr int scale_map_count = 6;

template <class T>
struct CouplingNumbers {
  T clamp, offset, eps, gain;
  T shift_gain;  // with the sign that direction and form give it
};

template <class V>
struct ScaleTerms {
  V log_s;       // L
  V s;           // exp(L)
  V derivative;  // dL/da
};

template <class V>
HK_INLINE V hyperbolic_tangent(V v, V& sech_squared) {
  V q, expm1_v;
  exponential_of_negative(absolute(v) * -2, q, expm1_v);
  const V reciprocal = 1 / (q + 1);
  sech_squared = 4 * q * reciprocal * reciprocal;
  return with_sign_of(-expm1_v * reciprocal, v);
}

// log(sigma(v) + eps), its exponential (inverted where Negate) and its derivative in v.
template <bool Negate, class V>
HK_INLINE ScaleTerms<V> sigmoid_terms(V v, ScalarOf<V> eps) {
  const V q = exponential(-absolute(v)), r = 1 / (q + 1), rq = q * r;
  const auto positive = v > 0;
  const V sigma = select(positive, r, rq), complement = select(positive, rq, r);  // sigma(v), sigma(-v)
  if (eps == 0) {
    const V log_sigma = at_most(v, 0) - log_one_plus(q);
    // 1/sigma(v) = 1 + exp(-v)
    const V s = Negate ? select(positive, q + 1, (q + 1) / q) : sigma;
    return {Negate ? -log_sigma : log_sigma, s, Negate ? -complement : complement};
  }
  const V s = sigma + eps;
  const V log_s = select(positive, log_one_plus(eps - complement), logarithm(s));
  const V derivative = sigma * complement / s;
  return {Negate ? -log_s : log_s, Negate ? 1 / s : s, Negate ? -derivative : derivative};
}

template <ScaleMap Map, bool Negate, class V>
HK_INLINE ScaleTerms<V> scale_terms(V a, const CouplingNumbers<ScalarOf<V>>& k) {
  const V v = a * k.gain + k.offset;
  if constexpr (Map == ScaleMap::sigmoid) {
    ScaleTerms<V> terms = sigmoid_terms<Negate>(v, k.eps);
    terms.derivative = terms.derivative * k.gain;
    return terms;
  }
  V log_s = v, slope = splat<V>(k.gain);
  if constexpr (Map == ScaleMap::tanh) {
    V sech_squared;
    log_s = k.clamp * hyperbolic_tangent(v, sech_squared);
    slope = (k.clamp * k.gain) * sech_squared;
  } else if constexpr (Map == ScaleMap::atan) {
    const ScalarOf<V> bound = k.clamp * ScalarOf<V>(0.636);
    log_s = bound * arc_tangent(v);
    slope = (bound * k.gain) / (v * v + 1);
  } else if constexpr (Map == ScaleMap::softsign) {
    const V r = 1 / (absolute(v) / k.clamp + 1);
    // v/(1 + |v|/c) tends to c; as v*r it would be infinity * 0 there
    log_s = select(absolute(v) < ScalarOf<V>(1e30), v * r, with_sign_of(splat<V>(k.clamp), v));
    log_s = select(v == v, log_s, v);
    slope = k.gain * r * r;
  }
  if (Negate) {
    log_s = -log_s;
    slope = -slope;
  }
  return {log_s, exponential(log_s), slope};
}

template <class V>
struct CouplingGradients {
  V x, grad_x, grad_a, grad_t;
};

// `known` is x, or y where FromOutput; `grad_total` is the gradient of the log-determinant.
template <ScaleMap Map, bool Negate, bool Before, bool FromOutput, class V>
HK_INLINE CouplingGradients<V> coupling_backward(V known, V a, V t, V grad_y, ScalarOf<V> grad_total,
                                                 const CouplingNumbers<ScalarOf<V>>& k) {
  const V shift = t * k.shift_gain;
  if constexpr (Map == ScaleMap::none)
    return {FromOutput ? known - shift : known, grad_y, V{}, grad_y * k.shift_gain};
  const ScaleTerms<V> terms = scale_terms<Map, Negate>(a, k);
  const V grad_x = grad_y * terms.s;
  V x, scaled, grad_t;  // scaled: the factor of dL/da in dy/da
  if constexpr (Before) {
    scaled = FromOutput ? known : (known + shift) * terms.s;
    x = FromOutput ? known / terms.s - shift : known;
    grad_t = grad_x * k.shift_gain;
  } else {
    scaled = FromOutput ? known - shift : known * terms.s;
    x = FromOutput ? scaled / terms.s : known;
    grad_t = grad_y * k.shift_gain;
  }
  return {x, grad_x, (grad_y * scaled + grad_total) * terms.derivative, grad_t};
}

}  // namespace hk::HK_ISA
