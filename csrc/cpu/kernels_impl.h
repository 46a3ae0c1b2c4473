// The loops of kernels.h over vectors of one instruction set; included once by each of isa_*.cpp.
#pragma once

#include "../math/coupling.h"
#include "../math/gaussian.h"
#include "../math/logistic.h"
#include "../math/pair.h"
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

// As put, but past the cache where `stream`; the address must then be a multiple of the vector's size.
template <bool Whole, class V>
HK_INLINE void put_streaming(ScalarOf<V>* to, V value, bool stream, int64_t count) {
  if constexpr (Whole) {
    if (stream) return store_past_cache(to, value);
  }
  put<Whole, V>(to, value, count);
}

// Brings nearer what lies 2 KiB further in each array, to be read or, where `Write`, to be written. The processor's own
// prefetching ends with a page of 4 KiB, which here is a block of an array. What lies there need not belong to it.
template <bool Write, class... T>
HK_INLINE void look_ahead(int64_t i, const T*... arrays) {
  ((arrays ? __builtin_prefetch(reinterpret_cast<const char*>(arrays + i) + 2048, Write) : void()), ...);
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

// Calls body.step<Whole>(i, count) for every vector of elements begin .. n-1.
template <class V, class Body>
HK_INLINE void for_vectors(int64_t begin, int64_t n, Body& body) {
  constexpr int64_t lanes = Lanes<V>::count;
  int64_t i = begin;
  for (; i + lanes <= n; i += lanes) body.template step<true>(i, lanes);
  if (i < n) body.template step<false>(i, n - i);
}
template <class V, class Body>
HK_INLINE void for_vectors(int64_t n, Body& body) {
  for_vectors<V>(0, n, body);
}

// The sum of run<V>(begin, n) over pairs of vectors, and of what is left over single ones.
template <class T, class Run>
HK_INLINE T for_pairs(int64_t n, const Run& run) {
  using V = typename VectorOf<T>::type;
#if HK_LANES > 1
  if constexpr (Lanes<V>::count > 1) {
    const int64_t paired = n / Lanes<FloatPair>::count * Lanes<FloatPair>::count;
    const T first = paired > 0 ? run.template operator()<FloatPair>(0, paired) : T(0);
    return paired < n ? first + run.template operator()<V>(paired, n) : first;
  }
#endif
  return run.template operator()<V>(0, n);
}

template <ScaleMap Map, bool Negate, bool Before, class T>
struct CouplingForward {
  using V = typename VectorOf<T>::type;
  const CouplingBlock<T>& block;
  const CouplingNumbers<T> k;
  LogScaleSum<Map, V> log_scales{};

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    look_ahead<false>(i, block.known, block.t, block.a);
    if (!block.stream) look_ahead<true>(i, block.y);
    const V x = get<Whole, V>(block.known + i, count), shift = get<Whole, V>(block.t + i, count) * k.shift_gain;
    if constexpr (Map == ScaleMap::none) {
      put_streaming<Whole, V>(block.y + i, x + shift, block.stream, count);
    } else {
      ScaleTerms<V> terms = scale_terms<Map, Negate>(get<Whole, V>(block.a + i, count), k);
      const V y = Before ? (x + shift) * terms.s : x * terms.s + shift;
      put_streaming<Whole, V>(block.y + i, y, block.stream, count);
      terms.log_s = masked<Whole, V>(terms.log_s, count);
      terms.log_term = masked<Whole, V>(terms.log_term, count);
      log_scales.add(terms);
    }
  }
};

template <ScaleMap Map, bool Negate, bool Before, class T>
T coupling_forward(const CouplingBlock<T>& block, const CouplingConstants<T>& c) {
  CouplingForward<Map, Negate, Before, T> body{block, {c.clamp, c.offset, c.eps, c.gain, c.shift_gain}};
  for_vectors<typename VectorOf<T>::type>(block.n, body);
  body.log_scales.flush();
  if (block.stream) finish_stores();
  return Negate ? -sum_lanes(body.log_scales.sum) : sum_lanes(body.log_scales.sum);
}

template <ScaleMap Map, bool Negate, bool Before, Known Known_, class T>
struct CouplingBackward {
  using V = typename VectorOf<T>::type;
  const CouplingBlock<T>& block;
  const CouplingNumbers<T> k;

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    look_ahead<false>(i, block.known, block.t, block.a, block.grad_y);
    if (!block.stream) look_ahead<true>(i, block.grad_x, block.grad_t, block.grad_a, block.x);
    const V grad_y = block.grad_y ? get<Whole, V>(block.grad_y + i, count) : V{};
    const V a = Map == ScaleMap::none ? V{} : get<Whole, V>(block.a + i, count);
    V t{};
    if constexpr (needs_shift<Before, Known_>) t = get<Whole, V>(block.t + i, count);
    const CouplingGradients<V> g = coupling_backward<Map, Negate, Before, Known_>(get<Whole, V>(block.known + i, count),
                                                                                  a, t, grad_y, block.grad_total, k);
    put_streaming<Whole, V>(block.grad_x + i, g.grad_x, block.stream, count);
    put_streaming<Whole, V>(block.grad_t + i, g.grad_t, block.stream, count);
    if constexpr (Map != ScaleMap::none) put_streaming<Whole, V>(block.grad_a + i, g.grad_a, block.stream, count);
    if constexpr (Known_ == Known::output_recover) put_streaming<Whole, V>(block.x + i, g.x, block.stream, count);
  }
};

template <ScaleMap Map, bool Negate, bool Before, Known Known_, class T>
void coupling_backward_block(const CouplingBlock<T>& block, const CouplingConstants<T>& c) {
  CouplingBackward<Map, Negate, Before, Known_, T> body{block, {c.clamp, c.offset, c.eps, c.gain, c.shift_gain}};
  for_vectors<typename VectorOf<T>::type>(block.n, body);
  if (block.stream) finish_stores();
}

template <class T>
struct RoundingForward {
  using V = typename VectorOf<T>::type;
  const T *x, *t;
  T beta, sign;
  T* y;
  bool stream;

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    look_ahead<false>(i, x, t);
    if (!stream) look_ahead<true>(i, y);
    const V rounded = round_even(get<Whole, V>(t + i, count) * beta);
    put_streaming<Whole, V>(y + i, get<Whole, V>(x + i, count) + rounded * sign, stream, count);
  }
};

template <class T>
void rounding_forward(const T* x, const T* t, T beta, T sign, T* y, bool stream, int64_t n) {
  RoundingForward<T> body{x, t, beta, sign, y, stream};
  for_vectors<typename VectorOf<T>::type>(n, body);
  if (stream) finish_stores();
}

template <class T>
struct RoundingBackward {
  using V = typename VectorOf<T>::type;
  const T *grad, *t;
  T factor;
  T* grad_t;
  bool stream;
  V sum{};

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    look_ahead<false>(i, grad, t);
    if (!stream) look_ahead<true>(i, grad_t);
    const V g = get<Whole, V>(grad + i, count);
    put_streaming<Whole, V>(grad_t + i, g * factor, stream, count);
    sum += g * get<Whole, V>(t + i, count);
  }
};

template <class T>
T rounding_backward(const T* grad, const T* t, T factor, T* grad_t, bool stream, int64_t n) {
  RoundingBackward<T> body{grad, t, factor, grad_t, stream};
  for_vectors<typename VectorOf<T>::type>(n, body);
  if (stream) finish_stores();
  return sum_lanes(body.sum);
}

template <class T>
BinNumbers<T> bin_numbers(const BinConstants<T>& c) {
  return {c.width, c.half, c.half_low};
}

template <class T>
struct LogisticPrepare {
  using V = typename VectorOf<T>::type;
  const T* log_scale;
  T* prepared;
  int64_t stride;
  const BinNumbers<T> bin;

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const ScalePart<V> part = scale_part(get<Whole, V>(log_scale + i, count), bin);
    put<Whole, V>(prepared + i, part.inverse, count);
    put<Whole, V>(prepared + stride + i, part.inverse_low, count);
    put<Whole, V>(prepared + 2 * stride + i, part.exp_h, count);
    put<Whole, V>(prepared + 3 * stride + i, part.mass, count);
    put<Whole, V>(prepared + 4 * stride + i, logarithm(part.mass) - part.excess, count);
  }
};

template <class T>
void logistic_prepare(const T* log_scale, T* prepared, int64_t stride, int64_t n, const BinConstants<T>& c) {
  LogisticPrepare<T> body{log_scale, prepared, stride, bin_numbers(c)};
  for_vectors<typename VectorOf<T>::type>(n, body);
}

template <bool Prepared, bool Whole, class T>
HK_INLINE ScalePart<typename VectorOf<T>::type> scale_part_at(const LogisticBlock<T>& block, int64_t i, int64_t count,
                                                              const BinNumbers<T>& bin) {
  using V = typename VectorOf<T>::type;
  if constexpr (!Prepared) return scale_part(get<Whole, V>(block.log_scale + i, count), bin);
  const T* p = block.prepared + i;
  return {get<Whole, V>(p, count), get<Whole, V>(p + block.stride, count), get<Whole, V>(p + 2 * block.stride, count),
          get<Whole, V>(p + 3 * block.stride, count), V{}};
}

template <bool Prepared, class T>
struct LogisticForward {
  using V = typename VectorOf<T>::type;
  const LogisticBlock<T>& block;
  const BinNumbers<T> bin;
  V sum{};

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const ScalePart<V> scale = scale_part_at<Prepared, Whole>(block, i, count, bin);
    const LogisticValue<V> value =
        logistic_value(get<Whole, V>(block.x + i, count), get<Whole, V>(block.mean + i, count), scale, bin);
    V log_p;
    if constexpr (Prepared)
      log_p = get<Whole, V>(block.prepared + 4 * block.stride + i, count) - value.outside - logarithm(value.rest);
    else
      log_p = logarithm(scale.mass / value.rest) - (value.outside + scale.excess);
    if (block.out) put<Whole, V>(block.out + i, log_p, count);
    sum += masked<Whole, V>(log_p, count);
  }
};

// Only the sum is wanted: one logarithm for `group` elements, as in LogScaleSum of math/coupling.h.
template <class T>
struct LogisticSum {
  using V = typename VectorOf<T>::type;
  static constexpr int group = 8;
  const LogisticBlock<T>& block;
  const BinNumbers<T> bin;
  V sum{}, product{};
  int waiting = 0;

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const ScalePart<V> scale = scale_part_at<true, Whole>(block, i, count, bin);
    const LogisticValue<V> value =
        logistic_value(get<Whole, V>(block.x + i, count), get<Whole, V>(block.mean + i, count), scale, bin);
    sum += masked<Whole, V>(get<Whole, V>(block.prepared + 4 * block.stride + i, count) - value.outside, count);
    const V less_one = masked<Whole, V>(value.rest_less_one, count);
    product = product * (less_one + 1) + less_one;
    if (++waiting == group) flush();
  }
  HK_INLINE void flush() {
    sum -= log_one_plus(product);
    product = V{};
    waiting = 0;
  }
};

template <class T, class Body>
T logistic_total(Body& body, int64_t n) {
  for_vectors<typename VectorOf<T>::type>(n, body);
  return sum_lanes(body.sum);
}

template <class T>
T logistic_forward(const LogisticBlock<T>& block, const BinConstants<T>& c) {
  if (block.prepared && !block.out) {
    LogisticSum<T> body{block, bin_numbers(c)};
    for_vectors<typename VectorOf<T>::type>(block.n, body);
    body.flush();
    return sum_lanes(body.sum);
  }
  if (block.prepared) {
    LogisticForward<true, T> body{block, bin_numbers(c)};
    return logistic_total<T>(body, block.n);
  }
  LogisticForward<false, T> body{block, bin_numbers(c)};
  return logistic_total<T>(body, block.n);
}

template <bool Prepared, class T>
struct LogisticBackward {
  using V = typename VectorOf<T>::type;
  const LogisticBlock<T>& block;
  const BinNumbers<T> bin;

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const ScalePart<V> scale = scale_part_at<Prepared, Whole>(block, i, count, bin);
    const LogisticSlopes<V> slopes =
        logistic_slopes(get<Whole, V>(block.x + i, count), get<Whole, V>(block.mean + i, count), scale, bin);
    const V grad = block.grad ? get<Whole, V>(block.grad + i, count) : splat<V>(block.grad_each);
    const V grad_x = grad * slopes.slope_x;
    put<Whole, V>(block.grad_x + i, grad_x, count);
    put_or_add<Whole, V>(block.grad_mean + i, -grad_x, block.accumulate, count);
    put_or_add<Whole, V>(block.grad_log_scale + i, grad * slopes.slope_log_scale, block.accumulate, count);
  }
};

template <class T>
void logistic_backward(const LogisticBlock<T>& block, const BinConstants<T>& c) {
  using V = typename VectorOf<T>::type;
  if (block.prepared) {
    LogisticBackward<true, T> body{block, bin_numbers(c)};
    for_vectors<V>(block.n, body);
  } else {
    LogisticBackward<false, T> body{block, bin_numbers(c)};
    for_vectors<V>(block.n, body);
  }
}

// log sum_k w_k P_k with w = softmax(logits).
//
// With t_k = logit_k - top - outside_k the sum is that of exp(t_k) * mass_k / rest_k, whose exponentials are at hand.
// Far outside every component it underflows; there the largest t_k is taken out first: sum = exp(-depth) * ...
// Which of the two an element takes depends on that element alone.
template <class V>
struct MixtureSums {
  V mass, weight_sum, depth;
};

template <class T, class V, bool Gradients>
struct Mixture {
  static constexpr T huge = sizeof(T) == 4 ? T(1e37) : T(1e300);
  static constexpr T shallow = sizeof(T) == 4 ? T(1e-25) : T(1e-250);
  const MixtureBlock<T>& block;
  const BinNumbers<T> bin;
  V sum{};

  enum Slot { weight, part, height, term, slope_x, slope_log_scale };
  HK_INLINE T* slot(int64_t k, Slot which) const { return block.scratch + (mixture_slots * k + which) * max_lanes; }

  // Asks for a component's part of the next block; a little at each step, since a processor waits for few at a time.
  // Into the second-level cache: the arrays lie at multiples of 4096 bytes, where the first has room for few of them.
  template <bool Write>
  HK_INLINE void look_ahead(const char* const* next, int64_t k, int64_t i) const {
    if (!next) return;
    constexpr int64_t width = sizeof(T), bytes = Lanes<V>::count * width;
    for (int64_t p = k; p < 3 * block.components; p += block.components)
      for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(next[p] + i * width + at, Write, 2);
  }

  template <bool Whole>
  HK_INLINE V top_logit(int64_t i, int64_t count) const {
    V top = get<Whole, V>(block.logits[0] + i, count);
    for (int64_t k = 1; k < block.components; ++k) {
      const V logit = get<Whole, V>(block.logits[k] + i, count);
      top = select(logit <= top, top, logit);  // a NaN wins
    }
    return top;
  }

  template <bool Whole>
  HK_INLINE MixtureSums<V> collect(int64_t i, int64_t count) {
    const V x = get<Whole, V>(block.x + i, count), top = top_logit<Whole>(i, count);
    MixtureSums<V> out{};
    for (int64_t k = 0; k < block.components; ++k) {
      look_ahead<false>(block.next_in, k, i);
      if constexpr (Gradients) look_ahead<true>(block.next_out, k, i);
      const V mean = get<Whole, V>(block.mean[k] + i, count);
      const ScalePart<V> scale = scale_part(get<Whole, V>(block.log_scale[k] + i, count), bin);
      const V below_top = get<Whole, V>(block.logits[k] + i, count) - top;
      V outside, exp_w, part_k;
      if constexpr (Gradients) {
        const LogisticSlopes<V> slopes = logistic_slopes(x, mean, scale, bin);
        outside = slopes.outside, exp_w = slopes.exp_w, part_k = scale.mass * slopes.per_rest;
        store<V>(slot(k, slope_x), slopes.slope_x);
        store<V>(slot(k, slope_log_scale), slopes.slope_log_scale);
      } else {
        const LogisticValue<V> value = logistic_value(x, mean, scale, bin);
        outside = value.outside, exp_w = value.exp_w, part_k = scale.mass / value.rest;
      }
      const V weight_k = exponential_of_negative(below_top);
      const V damped = select(outside > 0, exp_w, splat<V>(1));
      const V term_k = select(scale.excess > 0, V{}, weight_k * part_k * damped);
      out.weight_sum += weight_k;
      out.mass += term_k;
      store<V>(slot(k, part), part_k);
      // bounded, so that a component out of reach weighs 0 and not infinity - infinity
      store<V>(slot(k, height), below_top - at_most(outside + scale.excess, huge));
      if constexpr (Gradients) {
        store<V>(slot(k, weight), weight_k);
        store<V>(slot(k, term), term_k);
      }
    }
    if (any_at_most(out.mass, shallow)) settle_deep(out, i, count);
    return out;
  }

  void settle_deep(MixtureSums<V>& out, int64_t i, int64_t count) const {
    const auto deep = out.mass <= shallow;
    V top = load<V>(slot(0, height)), mass{};
    for (int64_t k = 1; k < block.components; ++k) {
      const V h = load<V>(slot(k, height));
      top = select(h > top, h, top);
    }
    for (int64_t k = 0; k < block.components; ++k)
      mass += load<V>(slot(k, part)) * exponential_of_negative(load<V>(slot(k, height)) - top);
    if constexpr (Gradients) {
      T each[Lanes<V>::count];
      store<V>(each, out.mass);
      for (int64_t lane = 0; lane < count; ++lane)
        if (each[lane] <= shallow) each[lane] = weigh_deep(i, lane);
      out.mass = load<V>(each);
    } else {
      out.mass = select(deep, mass, out.mass);
    }
    out.depth = select(deep, -top, V{});
  }

  // The components' shares at one element. They hang on differences of the t_k, which here are large and so are
  // formed in double precision. Returns their sum.
  T weigh_deep(int64_t i, int64_t lane) const {
    const int64_t at = i + lane;
    const auto height_of = [&](int64_t k) {
      const double log_scale = block.log_scale[k][at], bounded = log_scale < 60 ? log_scale : 60;
      const double far = std::fabs(static_cast<double>(block.x[at]) - static_cast<double>(block.mean[k][at]));
      const double outside = (far - bin.half - bin.half_low) * std::exp(bounded > -69 ? -bounded : 69);
      return static_cast<double>(block.logits[k][at]) - (outside > 0 ? outside : 0) - (log_scale - bounded);
    };
    double top = height_of(0);
    for (int64_t k = 1; k < block.components; ++k) top = std::fmax(top, height_of(k));
    T sum = 0;
    for (int64_t k = 0; k < block.components; ++k) {
      const T share = static_cast<T>(slot(k, part)[lane] * std::exp(height_of(k) - top));
      slot(k, term)[lane] = share;
      sum += share;
    }
    return sum;
  }

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const MixtureSums<V> sums = collect<Whole>(i, count);
    if constexpr (Gradients) {
      differentiate<Whole>(sums, i, count);
    } else {
      const V near = logarithm(sums.mass / sums.weight_sum) - sums.depth;
      const V log_p = select(absolute(get<Whole, V>(block.x + i, count)) == INFINITY, splat<V>(-INFINITY), near);
      if (block.out) put<Whole, V>(block.out + i, log_p, count);
      sum += masked<Whole, V>(log_p, count);
    }
  }

  template <bool Whole>
  HK_INLINE void give(T* to, V value, int64_t count) const {
    if (block.accumulate)
      put_or_add<Whole, V>(to, value, true, count);
    else
      put_streaming<Whole, V>(to, value, block.stream, count);
  }

  template <bool Whole>
  HK_INLINE void differentiate(const MixtureSums<V>& sums, int64_t i, int64_t count) {
    const V grad = block.grad ? get<Whole, V>(block.grad + i, count) : splat<V>(block.grad_each);
    const V per_mass = 1 / sums.mass, per_weight = 1 / sums.weight_sum;
    V total_x{};
    for (int64_t k = 0; k < block.components; ++k) {
      const V posterior = load<V>(slot(k, term)) * per_mass, prior = load<V>(slot(k, weight)) * per_weight;
      const V part_x = posterior * load<V>(slot(k, slope_x));
      total_x += part_x;
      give<Whole>(block.grad_logits[k] + i, grad * (posterior - prior), count);
      give<Whole>(block.grad_mean[k] + i, -grad * part_x, count);
      give<Whole>(block.grad_log_scale[k] + i, grad * (posterior * load<V>(slot(k, slope_log_scale))), count);
    }
    put<Whole, V>(block.grad_x + i, grad * total_x, count);
  }
};

template <class T>
T mixture_forward(const MixtureBlock<T>& block, const BinConstants<T>& c) {
  return for_pairs<T>(block.n, [&]<class V>(int64_t begin, int64_t n) {
    Mixture<T, V, false> body{block, bin_numbers(c)};
    for_vectors<V>(begin, n, body);
    return sum_lanes(body.sum);
  });
}

template <class T>
void mixture_backward(const MixtureBlock<T>& block, const BinConstants<T>& c) {
  for_pairs<T>(block.n, [&]<class V>(int64_t begin, int64_t n) {
    Mixture<T, V, true> body{block, bin_numbers(c)};
    for_vectors<V>(begin, n, body);
    return T(0);
  });
  if (block.stream) finish_stores();
}

template <class T>
struct Gaussian {
  using V = typename VectorOf<T>::type;
  const GaussianBlock<T>& block;
  V sum{};

  template <bool Whole>
  HK_INLINE GaussianTerms<V> terms(int64_t i, int64_t count) const {
    return gaussian_terms<V>(get<Whole, V>(block.x + i, count), block.mean ? get<Whole, V>(block.mean + i, count) : V{},
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
  table.coupling_backward[m][0][0][0] = coupling_backward_block<Map, false, false, Known::input, T>;
  table.coupling_backward[m][0][0][1] = coupling_backward_block<Map, false, false, Known::output, T>;
  table.coupling_backward[m][0][0][2] = coupling_backward_block<Map, false, false, Known::output_recover, T>;
  table.coupling_backward[m][0][1][0] = coupling_backward_block<Map, false, true, Known::input, T>;
  table.coupling_backward[m][0][1][1] = coupling_backward_block<Map, false, true, Known::output, T>;
  table.coupling_backward[m][0][1][2] = coupling_backward_block<Map, false, true, Known::output_recover, T>;
  table.coupling_backward[m][1][0][0] = coupling_backward_block<Map, true, false, Known::input, T>;
  table.coupling_backward[m][1][0][1] = coupling_backward_block<Map, true, false, Known::output, T>;
  table.coupling_backward[m][1][0][2] = coupling_backward_block<Map, true, false, Known::output_recover, T>;
  table.coupling_backward[m][1][1][0] = coupling_backward_block<Map, true, true, Known::input, T>;
  table.coupling_backward[m][1][1][1] = coupling_backward_block<Map, true, true, Known::output, T>;
  table.coupling_backward[m][1][1][2] = coupling_backward_block<Map, true, true, Known::output_recover, T>;
}

// P pixels from p on, one vector of outputs of each half.
template <int P, class T>
HK_INLINE void paired_pixels(const PairedBlock<T>& block, const T* weight, const T* bias, int64_t tile, int64_t p) {
  using V = typename VectorOf<T>::type;
  constexpr int64_t lanes = Lanes<V>::count;
  const int64_t c = block.channels;
  V sums[P][2];
  for (int k = 0; k < P; ++k) {
    sums[k][0] = load<V>(bias);
    sums[k][1] = load<V>(bias + lanes);
  }
  for (int half = 0; half < 2; ++half) {
    const T* x = (half ? block.second : block.first) + p * c;
    for (int64_t i = 0; i < c; ++i, weight += 2 * lanes) {
      const V to_first = load<V>(weight), to_second = load<V>(weight + lanes);
      for (int k = 0; k < P; ++k) {
        sums[k][0] += to_first * x[k * c + i];
        sums[k][1] += to_second * x[k * c + i];
      }
    }
  }
  for (int k = 0; k < P; ++k) {
    store<V>(block.out_first + (p + k) * c + tile * lanes, sums[k][0]);
    store<V>(block.out_second + (p + k) * c + tile * lanes, sums[k][1]);
  }
}

// The last vector of a pixel runs over into the next pixel, which is written later: tiles from the last to the first,
// pixels from the first to the last.
template <class T>
void paired_forward(const PairedBlock<T>& block) {
  constexpr int64_t lanes = Lanes<typename VectorOf<T>::type>::count;
  const int64_t c = block.channels;
  for (int64_t tile = (c - 1) / lanes; tile >= 0; --tile) {
    const T *weight = block.weight + tile * 4 * c * lanes, *bias = block.bias + tile * 2 * lanes;
    int64_t p = 0;
    for (; p + 4 <= block.n; p += 4) paired_pixels<4>(block, weight, bias, tile, p);
    for (; p < block.n; ++p) paired_pixels<1>(block, weight, bias, tile, p);
  }
}

// Sums over the pixels of input times gradient: N inputs, one vector of gradients of each half.
template <int N, class T>
HK_INLINE void paired_products(const PairedGradientBlock<T>& block, const T* x, int64_t tile, T* sums, int64_t stride) {
  using V = typename VectorOf<T>::type;
  const int64_t c = block.channels, offset = tile * Lanes<V>::count;
  V to[N][2]{};
  for (int64_t p = 0; p < block.n; ++p) {
    const V first = load<V>(block.grad_first + p * c + offset), second = load<V>(block.grad_second + p * c + offset);
    for (int k = 0; k < N; ++k) {
      to[k][0] += first * x[p * c + k];
      to[k][1] += second * x[p * c + k];
    }
  }
  for (int k = 0; k < N; ++k) {
    store<V>(sums + 2 * k * stride + offset, to[k][0]);
    store<V>(sums + (2 * k + 1) * stride + offset, to[k][1]);
  }
}

template <class T>
void paired_weight_gradient(const PairedGradientBlock<T>& block) {
  using V = typename VectorOf<T>::type;
  constexpr int64_t lanes = Lanes<V>::count;
  const int64_t c = block.channels, tiles = (c + lanes - 1) / lanes, stride = tiles * lanes;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    for (int half = 0; half < 2; ++half) {
      const T* x = half ? block.second : block.first;
      T* sums = block.sums + half * c * 2 * stride;
      int64_t i = 0;
      for (; i + 4 <= c; i += 4) paired_products<4>(block, x + i, tile, sums + 2 * i * stride, stride);
      for (; i < c; ++i) paired_products<1>(block, x + i, tile, sums + 2 * i * stride, stride);
    }
    V first{}, second{};
    for (int64_t p = 0; p < block.n; ++p) {
      first += load<V>(block.grad_first + p * c + tile * lanes);
      second += load<V>(block.grad_second + p * c + tile * lanes);
    }
    store<V>(block.sums + 4 * c * stride + tile * lanes, first);
    store<V>(block.sums + (4 * c + 1) * stride + tile * lanes, second);
  }
}

template <class T>
Kernels<T> make_kernels(const char* name) {
  static_assert(scale_map_count == scale_maps);
  Kernels<T> table{};
  table.name = name;
  table.lanes = Lanes<typename VectorOf<T>::type>::count;
  fill_couplings<ScaleMap::none>(table);
  fill_couplings<ScaleMap::exp>(table);
  fill_couplings<ScaleMap::sigmoid>(table);
  fill_couplings<ScaleMap::tanh>(table);
  fill_couplings<ScaleMap::atan>(table);
  fill_couplings<ScaleMap::softsign>(table);
  fill_couplings<ScaleMap::sigmoid_eps>(table);
  table.rounding_forward = rounding_forward<T>;
  table.rounding_backward = rounding_backward<T>;
  table.logistic_prepare = logistic_prepare<T>;
  table.logistic_forward = logistic_forward<T>;
  table.logistic_backward = logistic_backward<T>;
  table.mixture_forward = mixture_forward<T>;
  table.mixture_backward = mixture_backward<T>;
  table.gaussian_forward = gaussian_forward<T>;
  table.gaussian_backward = gaussian_backward<T>;
  table.paired_forward = paired_forward<T>;
  table.paired_weight_gradient = paired_weight_gradient<T>;
  return table;
}

}  // namespace hk::HK_ISA
