// The loops of kernels.h over vectors of one instruction set; included once by each of isa_*.cpp.
#pragma once

#include "../math/coupling.h"
#include "../math/gaussian.h"
#include "../math/logistic.h"
#include "kernels.h"

namespace hk::HK_ISA {

template <class T>
struct VectorOf {
  using type = T;
};
#if HK_LANES > 1
template <>
struct VectorOf<float> {
  using type = Floats;
};
#endif

// The last, partial vector of a block is read into and written from a whole one.
template <class V>
HK_INLINE V load_some(const ScalarOf<V>* from, int64_t count) {
  V out{};
  memcpy(&out, from, count * sizeof(ScalarOf<V>));
  return out;
}

template <class V>
HK_INLINE void store_some(ScalarOf<V>* to, V value, int64_t count) {
  memcpy(to, &value, count * sizeof(ScalarOf<V>));
}

template <bool Whole, class V>
HK_INLINE V get(const ScalarOf<V>* from, int64_t count) {
  return Whole ? load<V>(from) : load_some<V>(from, count);
}

template <bool Whole, class V>
HK_INLINE void put(ScalarOf<V>* to, V value, int64_t count) {
  Whole ? store<V>(to, value) : store_some<V>(to, value, count);
}

template <bool Whole, class V>
HK_INLINE void put_or_add(ScalarOf<V>* to, V value, bool add, int64_t count) {
  put<Whole, V>(to, add ? get<Whole, V>(to, count) + value : value, count);
}

// Zero in the lanes that hold no element.
template <bool Whole, class V>
HK_INLINE V masked(V value, int64_t count) {
  if constexpr (Whole) return value;
  V kept{};
  memcpy(&kept, &value, count * sizeof(ScalarOf<V>));
  return kept;
}

// Calls body.step<Whole>(i, count) for every vector of n elements.
template <class V, class Body>
HK_INLINE void for_vectors(int64_t n, Body& body) {
  constexpr int64_t lanes = Lanes<V>::count;
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body.template step<true>(i, lanes);
  if (i < n) body.template step<false>(i, n - i);
}

template <ScaleMap Map, bool Negate, bool Before, class T>
struct CouplingForward {
  using V = typename VectorOf<T>::type;
  const CouplingBlock<T>& block;
  const CouplingNumbers<T> k;
  V sum{};

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const V x = get<Whole, V>(block.known + i, count), shift = get<Whole, V>(block.t + i, count) * k.shift_gain;
    if constexpr (Map == ScaleMap::none) {
      put<Whole, V>(block.y + i, x + shift, count);
    } else {
      const ScaleTerms<V> terms = scale_terms<Map, Negate>(get<Whole, V>(block.a + i, count), k);
      put<Whole, V>(block.y + i, Before ? (x + shift) * terms.s : x * terms.s + shift, count);
      sum += masked<Whole, V>(terms.log_s, count);
    }
  }
};

template <ScaleMap Map, bool Negate, bool Before, class T>
T coupling_forward(const CouplingBlock<T>& block, const CouplingConstants<T>& c) {
  CouplingForward<Map, Negate, Before, T> body{block, {c.clamp, c.offset, c.eps, c.gain, c.shift_gain}};
  for_vectors<typename VectorOf<T>::type>(block.n, body);
  return sum_lanes(body.sum);
}

template <ScaleMap Map, bool Negate, bool Before, bool FromOutput, class T>
struct CouplingBackward {
  using V = typename VectorOf<T>::type;
  const CouplingBlock<T>& block;
  const CouplingNumbers<T> k;

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const V grad_y = block.grad_y ? get<Whole, V>(block.grad_y + i, count) : V{};
    const V a = Map == ScaleMap::none ? V{} : get<Whole, V>(block.a + i, count);
    const CouplingGradients<V> g = coupling_backward<Map, Negate, Before, FromOutput>(
        get<Whole, V>(block.known + i, count), a, get<Whole, V>(block.t + i, count), grad_y, block.grad_total, k);
    put<Whole, V>(block.grad_x + i, g.grad_x, count);
    put<Whole, V>(block.grad_t + i, g.grad_t, count);
    if constexpr (Map != ScaleMap::none) put<Whole, V>(block.grad_a + i, g.grad_a, count);
    if constexpr (FromOutput) put<Whole, V>(block.x + i, g.x, count);
  }
};

template <ScaleMap Map, bool Negate, bool Before, bool FromOutput, class T>
void coupling_backward_block(const CouplingBlock<T>& block, const CouplingConstants<T>& c) {
  CouplingBackward<Map, Negate, Before, FromOutput, T> body{block,
                                                            {c.clamp, c.offset, c.eps, c.gain, c.shift_gain}};
  for_vectors<typename VectorOf<T>::type>(block.n, body);
}

template <class T>
struct RoundingForward {
  using V = typename VectorOf<T>::type;
  const T *x, *t;
  T beta, sign;
  T* y;

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const V rounded = round_even(get<Whole, V>(t + i, count) * beta);
    put<Whole, V>(y + i, get<Whole, V>(x + i, count) + rounded * sign, count);
  }
};

template <class T>
void rounding_forward(const T* x, const T* t, T beta, T sign, T* y, int64_t n) {
  RoundingForward<T> body{x, t, beta, sign, y};
  for_vectors<typename VectorOf<T>::type>(n, body);
}

template <class T>
struct RoundingBackward {
  using V = typename VectorOf<T>::type;
  const T *grad, *t;
  T factor;
  T* grad_t;
  V sum{};

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const V g = get<Whole, V>(grad + i, count);
    put<Whole, V>(grad_t + i, g * factor, count);
    sum += g * get<Whole, V>(t + i, count);
  }
};

template <class T>
T rounding_backward(const T* grad, const T* t, T factor, T* grad_t, int64_t n) {
  RoundingBackward<T> body{grad, t, factor, grad_t};
  for_vectors<typename VectorOf<T>::type>(n, body);
  return sum_lanes(body.sum);
}

template <class T>
struct LogisticForward {
  using V = typename VectorOf<T>::type;
  const LogisticBlock<T>& block;
  const BinNumbers<T> bin;
  V sum{};

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const LogisticTerms<V> terms =
        logistic_terms<false>(get<Whole, V>(block.x + i, count), get<Whole, V>(block.mean + i, count),
                              get<Whole, V>(block.log_scale + i, count), bin);
    const V log_p = terms.linear + logarithm(terms.ratio);
    if (block.out) put<Whole, V>(block.out + i, log_p, count);
    sum += masked<Whole, V>(log_p, count);
  }
};

template <class T>
T logistic_forward(const LogisticBlock<T>& block, const BinConstants<T>& c) {
  LogisticForward<T> body{block, {c.width, c.half, c.half_low, c.log_width}};
  for_vectors<typename VectorOf<T>::type>(block.n, body);
  return sum_lanes(body.sum);
}

template <class T>
struct LogisticBackward {
  using V = typename VectorOf<T>::type;
  const LogisticBlock<T>& block;
  const BinNumbers<T> bin;

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const LogisticTerms<V> terms =
        logistic_terms<true>(get<Whole, V>(block.x + i, count), get<Whole, V>(block.mean + i, count),
                             get<Whole, V>(block.log_scale + i, count), bin);
    const V grad = block.grad ? get<Whole, V>(block.grad + i, count) : splat<V>(block.grad_each);
    const V grad_x = grad * terms.slope_x;
    put<Whole, V>(block.grad_x + i, grad_x, count);
    put_or_add<Whole, V>(block.grad_mean + i, -grad_x, block.accumulate, count);
    put_or_add<Whole, V>(block.grad_log_scale + i, grad * terms.slope_log_scale, block.accumulate, count);
  }
};

template <class T>
void logistic_backward(const LogisticBlock<T>& block, const BinConstants<T>& c) {
  LogisticBackward<T> body{block, {c.width, c.half, c.half_low, c.log_width}};
  for_vectors<typename VectorOf<T>::type>(block.n, body);
}

// log sum_k w_k P_k with w = softmax(logits): the largest exponent is taken out of both sums.
template <class V>
struct MixtureSums {
  V top, top_logit;    // largest linear part and logit
  V mass, weight_sum;  // sum of ratio*exp(linear - top), of exp(logit - top_logit)
};

template <class T, bool Gradients>
struct Mixture {
  using V = typename VectorOf<T>::type;
  static constexpr T huge = sizeof(T) == 4 ? T(1e37) : T(1e300);
  const MixtureBlock<T>& block;
  const BinNumbers<T> bin;
  V sum{};

  // scratch holds, for each component: linear part, ratio, and the two slopes
  HK_INLINE T* slot(int64_t k, int which) const { return block.scratch + (4 * k + which) * max_lanes; }

  template <bool Whole>
  HK_INLINE MixtureSums<V> collect(int64_t i, int64_t count) {
    const V x = get<Whole, V>(block.x + i, count);
    V top = splat<V>(-INFINITY), top_logit = splat<V>(-INFINITY);
    for (int64_t k = 0; k < block.components; ++k) {
      const V logit = get<Whole, V>(block.logits[k] + i, count);
      const LogisticTerms<V> terms = logistic_terms<Gradients>(x, get<Whole, V>(block.mean[k] + i, count),
                                                               get<Whole, V>(block.log_scale[k] + i, count), bin);
      // bounded, so that a component out of reach weighs 0 and not infinity - infinity
      const V linear = logit + at_least(terms.linear, -huge);
      store<V>(slot(k, 0), linear);
      store<V>(slot(k, 1), terms.ratio);
      if constexpr (Gradients) {
        store<V>(slot(k, 2), terms.slope_x);
        store<V>(slot(k, 3), terms.slope_log_scale);
      }
      // a NaN must win: `not <=`
      top = select(linear <= top, top, linear);
      top_logit = select(logit <= top_logit, top_logit, logit);
    }
    V mass{}, weight_sum{};
    for (int64_t k = 0; k < block.components; ++k) {
      mass += load<V>(slot(k, 1)) * exponential(load<V>(slot(k, 0)) - top);
      weight_sum += exponential(get<Whole, V>(block.logits[k] + i, count) - top_logit);
    }
    return {top, top_logit, mass, weight_sum};
  }

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const MixtureSums<V> sums = collect<Whole>(i, count);
    if constexpr (Gradients) {
      differentiate<Whole>(sums, i, count);
    } else {
      const V log_p = (sums.top - sums.top_logit) + logarithm(sums.mass / sums.weight_sum);
      if (block.out) put<Whole, V>(block.out + i, log_p, count);
      sum += masked<Whole, V>(log_p, count);
    }
  }

  template <bool Whole>
  HK_INLINE void differentiate(const MixtureSums<V>& sums, int64_t i, int64_t count) {
    const V grad = block.grad ? get<Whole, V>(block.grad + i, count) : splat<V>(block.grad_each);
    const V per_mass = 1 / sums.mass, per_weight = 1 / sums.weight_sum;
    V slope_x{};
    for (int64_t k = 0; k < block.components; ++k) {
      const V posterior = load<V>(slot(k, 1)) * exponential(load<V>(slot(k, 0)) - sums.top) * per_mass;
      const V prior = exponential(get<Whole, V>(block.logits[k] + i, count) - sums.top_logit) * per_weight;
      const V share = grad * posterior, part_x = posterior * load<V>(slot(k, 2));
      slope_x += part_x;
      put_or_add<Whole, V>(block.grad_logits[k] + i, grad * (posterior - prior), block.accumulate, count);
      put_or_add<Whole, V>(block.grad_mean[k] + i, -grad * part_x, block.accumulate, count);
      put_or_add<Whole, V>(block.grad_log_scale[k] + i, share * load<V>(slot(k, 3)), block.accumulate, count);
    }
    put<Whole, V>(block.grad_x + i, grad * slope_x, count);
  }
};

template <class T>
T mixture_forward(const MixtureBlock<T>& block, const BinConstants<T>& c) {
  Mixture<T, false> body{block, {c.width, c.half, c.half_low, c.log_width}};
  for_vectors<typename VectorOf<T>::type>(block.n, body);
  return sum_lanes(body.sum);
}

template <class T>
void mixture_backward(const MixtureBlock<T>& block, const BinConstants<T>& c) {
  Mixture<T, true> body{block, {c.width, c.half, c.half_low, c.log_width}};
  for_vectors<typename VectorOf<T>::type>(block.n, body);
}

template <class T>
struct Gaussian {
  using V = typename VectorOf<T>::type;
  const GaussianBlock<T>& block;
  V sum{};

  template <bool Whole>
  HK_INLINE GaussianTerms<V> terms(int64_t i, int64_t count) const {
    return gaussian_terms<V>(get<Whole, V>(block.x + i, count),
                             block.mean ? get<Whole, V>(block.mean + i, count) : V{},
                             block.log_scale ? get<Whole, V>(block.log_scale + i, count) : V{});
  }

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    sum += masked<Whole, V>(terms<Whole>(i, count).log_p, count);
  }
};

template <class T>
T gaussian_forward(const GaussianBlock<T>& block) {
  Gaussian<T> body{block};
  for_vectors<typename VectorOf<T>::type>(block.n, body);
  return sum_lanes(body.sum);
}

template <class T>
struct GaussianBackward : Gaussian<T> {
  using typename Gaussian<T>::V;

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const GaussianBlock<T>& b = this->block;
    const GaussianTerms<V> g = this->template terms<Whole>(i, count);
    const V grad_x = g.slope_x * b.grad_each;
    put<Whole, V>(b.grad_x + i, grad_x, count);
    if (b.grad_mean) put_or_add<Whole, V>(b.grad_mean + i, -grad_x, b.accumulate, count);
    if (b.grad_log_scale)
      put_or_add<Whole, V>(b.grad_log_scale + i, g.slope_log_scale * b.grad_each, b.accumulate, count);
  }
};

template <class T>
void gaussian_backward(const GaussianBlock<T>& block) {
  GaussianBackward<T> body{{block}};
  for_vectors<typename VectorOf<T>::type>(block.n, body);
}

template <ScaleMap Map, class T>
void fill_couplings(Kernels<T>& table) {
  constexpr int m = static_cast<int>(Map);
  table.coupling_forward[m][0][0] = coupling_forward<Map, false, false, T>;
  table.coupling_forward[m][0][1] = coupling_forward<Map, false, true, T>;
  table.coupling_forward[m][1][0] = coupling_forward<Map, true, false, T>;
  table.coupling_forward[m][1][1] = coupling_forward<Map, true, true, T>;
  table.coupling_backward[m][0][0][0] = coupling_backward_block<Map, false, false, false, T>;
  table.coupling_backward[m][0][0][1] = coupling_backward_block<Map, false, false, true, T>;
  table.coupling_backward[m][0][1][0] = coupling_backward_block<Map, false, true, false, T>;
  table.coupling_backward[m][0][1][1] = coupling_backward_block<Map, false, true, true, T>;
  table.coupling_backward[m][1][0][0] = coupling_backward_block<Map, true, false, false, T>;
  table.coupling_backward[m][1][0][1] = coupling_backward_block<Map, true, false, true, T>;
  table.coupling_backward[m][1][1][0] = coupling_backward_block<Map, true, true, false, T>;
  table.coupling_backward[m][1][1][1] = coupling_backward_block<Map, true, true, true, T>;
}

template <class T>
Kernels<T> make_kernels(const char* name) {
  static_assert(scale_map_count == scale_maps);
  Kernels<T> table{};
  table.name = name;
  fill_couplings<ScaleMap::none>(table);
  fill_couplings<ScaleMap::exp>(table);
  fill_couplings<ScaleMap::sigmoid>(table);
  fill_couplings<ScaleMap::tanh>(table);
  fill_couplings<ScaleMap::atan>(table);
  fill_couplings<ScaleMap::softsign>(table);
  table.rounding_forward = rounding_forward<T>;
  table.rounding_backward = rounding_backward<T>;
  table.logistic_forward = logistic_forward<T>;
  table.logistic_backward = logistic_backward<T>;
  table.mixture_forward = mixture_forward<T>;
  table.mixture_backward = mixture_backward<T>;
  table.gaussian_forward = gaussian_forward<T>;
  table.gaussian_backward = gaussian_backward<T>;
  return table;
}

}  // namespace hk::HK_ISA
