// The loops of discretized_logistic.
#pragma once

#include "../cpu/kernels.h"
#include "../cpu/vectors.h"
#include "math.h"

namespace hk::HK_ISA {

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

// Only the sum is wanted: one logarithm for `group` elements, as in LogScaleSum of affine_coupling/math.h.
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

}  // namespace hk::HK_ISA
