// The loops of discretized_logistic_mixture.
#pragma once

#include "../discretized_logistic/loops.h"

namespace hk::HK_ISA {

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

}  // namespace hk::HK_ISA
