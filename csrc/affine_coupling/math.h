// Affine coupling: the form's log s and its derivative, and one element of the forward and the backward pass.
//
// With raw scale a and raw shift t, every form is y = x*S + T or y = (x + T)*S with L = log S = +-map(gain*a + offset)
// and T = shift_gain*t, up to signs. The inverse of a form is a form of the same family: S becomes 1/S, T changes its
// sign, and "add after" becomes "add before". So there is one forward and one backward for both directions.
#pragma once

#include <limits>

#include "../math/elementary.h"
#include "form.h"

namespace hk::HK_ISA {

// Order of SCALES in hybridkern/ops/affine_coupling/form.py; the last one is "sigmoid" with eps > 0.
enum class ScaleMap : int { none, exp, sigmoid, tanh, atan, softsign, softplus, sigmoid_eps };
static_assert(static_cast<int>(ScaleMap::sigmoid_eps) + 1 == scale_maps);

// log S = log_s - log(1 + log_term), so that a sum over many elements needs few logarithms; log_term is 0 for most
// maps. The signs of both are those of the map before `Negate`.
template <class V>
struct ScaleTerms {
  V log_s, log_term;
  V s;           // S
  V derivative;  // dL/da
};

// Sum of log S over elements. The logarithms of `group` factors are taken at once: with R = product(1 + r) - 1,
// R' = R*(1 + r) + r keeps full relative precision however small the r are.
template <ScaleMap Map, class V>
struct LogScaleSum {
  static constexpr int group = 8;
  V sum{}, product{};
  int waiting = 0;

  HK_INLINE void add(const ScaleTerms<V>& terms) {
    sum += terms.log_s;
    if constexpr (Map == ScaleMap::sigmoid) {
      product = product * (terms.log_term + 1) + terms.log_term;
      if (++waiting == group) flush();
    }
  }
  HK_INLINE void flush() {
    if constexpr (Map == ScaleMap::sigmoid) {
      sum -= log_one_plus(product);
      product = V{};
      waiting = 0;
    }
  }
};

template <class V>
HK_INLINE V hyperbolic_tangent(V v, V& sech_squared) {
  V q, expm1_v;
  exponential_of_negative(absolute(v) * -2, q, expm1_v);
  const V reciprocal = 1 / (q + 1);
  sech_squared = 4 * q * reciprocal * reciprocal;
  return with_sign_of(-expm1_v * reciprocal, v);
}

// log(sigma(v) + eps), its exponential (inverted where `negate`) and its derivative in v.
template <bool HasEps, class V>
HK_INLINE ScaleTerms<V> sigmoid_terms(V v, ScalarOf<V> eps, bool negate) {
  const V q = exponential_of_negative(-absolute(v)), r = 1 / (q + 1), rq = q * r;
  const auto positive = v > 0;
  const V sigma = select(positive, r, rq), complement = select(positive, rq, r);  // sigma(v), sigma(-v)
  if constexpr (!HasEps) {
    // log sigma(v) = min(v, 0) - log(1 + q), and 1/sigma(v) = 1 + exp(-v)
    const V s = negate ? select(positive, q + 1, (q + 1) / q) : sigma;
    return {at_most(v, 0), q, s, negate ? -complement : complement};
  }
  const V s = sigma + eps;
  const V log_s = select(positive, log_one_plus(eps - complement), logarithm(s));
  const V derivative = sigma * complement / s;
  return {log_s, V{}, negate ? 1 / s : s, negate ? -derivative : derivative};
}

// log(softplus(v) + eps) likewise.
template <class V>
HK_INLINE ScaleTerms<V> softplus_terms(V v, ScalarOf<V> eps, bool negate) {
  const V q = exponential_of_negative(-absolute(v)), r = 1 / (q + 1);
  const V s = at_least(v, 0) + log_one_plus(q) + eps;
  // without eps, the logarithm of what tends to exp(v) is v: it must not run into that of 0
  constexpr ScalarOf<V> infinity = std::numeric_limits<ScalarOf<V>>::infinity();
  const ScalarOf<V> far = eps > 0 ? -infinity : ScalarOf<V>(-40);
  const auto is_far = v < far, within = v < infinity;
  const V log_s = select(is_far | !within, v, logarithm(s));
  const V derivative = select(is_far, splat<V>(1), select(v > 0, r, q * r) / s);
  return {log_s, V{}, negate ? 1 / s : s, negate ? -derivative : derivative};
}

template <ScaleMap Map, class V>
HK_INLINE ScaleTerms<V> scale_terms(V a, const CouplingForm<ScalarOf<V>>& k, bool negate) {
  const V v = a * k.gain + k.offset;
  if constexpr (Map == ScaleMap::sigmoid || Map == ScaleMap::sigmoid_eps) {
    ScaleTerms<V> terms = sigmoid_terms<Map == ScaleMap::sigmoid_eps>(v, k.eps, negate);
    terms.derivative = terms.derivative * k.gain;
    return terms;
  }
  if constexpr (Map == ScaleMap::softplus) {
    ScaleTerms<V> terms = softplus_terms(v, k.eps, negate);
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
    log_s = select(absolute(v) > ScalarOf<V>(1e30), with_sign_of(splat<V>(k.clamp), v), v * r);
    slope = k.gain * r * r;
  }
  return {log_s, V{}, exponential(negate ? -log_s : log_s), negate ? -slope : slope};
}

template <ScaleMap Map, bool Negate, class V>
HK_INLINE ScaleTerms<V> scale_terms(V a, const CouplingForm<ScalarOf<V>>& k) {
  return scale_terms<Map>(a, k, Negate);
}

template <class V>
struct CouplingGradients {
  V x, grad_x, grad_a, grad_t;
};

// From what the backward pass starts: the input x, the output y, or y with x to be recovered as well.
enum class Known : int { input, output, output_recover };

// dy/da = dL/da times x*S or (x + T)*S, which is y where the shift comes before the scale: the shift itself is read
// only to form one of the two from the other.
HK_INLINE constexpr bool reads_shift(bool before, Known known) {
  return known == Known::output_recover || (known == Known::input) == before;
}
template <bool Before, Known Known_>
constexpr bool needs_shift = reads_shift(Before, Known_);

// Without scale: y = x + T.
template <class V>
HK_INLINE CouplingGradients<V> shift_backward(V known, V t, V grad_y, const CouplingForm<ScalarOf<V>>& k,
                                              bool from_output) {
  return {from_output ? known - t * k.shift_gain : known, grad_y, V{}, grad_y * k.shift_gain};
}

// `grad_log_det` is the gradient of the log-determinant.
template <class V>
HK_INLINE CouplingGradients<V> coupling_backward(const ScaleTerms<V>& terms, V known, V t, V grad_y,
                                                 ScalarOf<V> grad_log_det, const CouplingForm<ScalarOf<V>>& k,
                                                 bool before, bool from_output) {
  const V shift = t * k.shift_gain;
  const V grad_x = grad_y * terms.s;
  V x, scaled, grad_t;  // scaled: the factor of dL/da in dy/da
  if (before) {
    scaled = from_output ? known : (known + shift) * terms.s;
    x = from_output ? known / terms.s - shift : known;
    grad_t = grad_x * k.shift_gain;
  } else {
    scaled = from_output ? known - shift : known * terms.s;
    x = from_output ? scaled / terms.s : known;
    grad_t = grad_y * k.shift_gain;
  }
  return {x, grad_x, (grad_y * scaled + grad_log_det) * terms.derivative, grad_t};
}

template <ScaleMap Map, bool Negate, bool Before, Known Known_, class V>
HK_INLINE CouplingGradients<V> coupling_backward(V known, V a, V t, V grad_y, ScalarOf<V> grad_log_det,
                                                 const CouplingForm<ScalarOf<V>>& k) {
  constexpr bool from_output = Known_ != Known::input;
  if constexpr (Map == ScaleMap::none) return shift_backward(known, t, grad_y, k, from_output);
  return coupling_backward(scale_terms<Map, Negate>(a, k), known, t, grad_y, grad_log_det, k, Before, from_output);
}

}  // namespace hk::HK_ISA
