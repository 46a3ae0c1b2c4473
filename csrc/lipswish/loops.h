// The loops of lipswish.
#pragma once

#include "../cpu/kernels.h"
#include "../cpu/vectors.h"
#include "math.h"

namespace hk::HK_ISA {

template <class T>
struct LipswishForward {
  using V = typename VectorOf<T>::type;
  const LipswishBlock<T>& block;

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const V x = get<Whole, V>(block.x + i, count), scaled = x * block.scale;
    const Swish<V> at = swish<V>(x, block.b);
    put<Whole, V>(block.out + i, scaled * at.s, count);
    if (block.out_pair) put<Whole, V>(block.out_pair + i, -scaled * at.rest, count);
  }
};

template <class T>
void lipswish_forward(const LipswishBlock<T>& block) {
  LipswishForward<T> body{block};
  for_vectors<typename VectorOf<T>::type>(block.n, body);
}

template <class T>
struct LipswishBackward {
  using V = typename VectorOf<T>::type;
  const LipswishBlock<T>& block;
  V sum{};

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const V x = get<Whole, V>(block.x + i, count);
    const Swish<V> at = swish<V>(x, block.b);
    V g = get<Whole, V>(block.grad + i, count) * block.scale;
    V g_pair{};
    if (block.grad_pair) g_pair = get<Whole, V>(block.grad_pair + i, count) * block.scale;
    g += g_pair;
    put<Whole, V>(block.out + i, g * swish_slope(x, block.b, at) - g_pair, count);
    sum += masked<Whole, V>(g * swish_slope_b(x, at), count);
  }
};

template <class T>
T lipswish_backward(const LipswishBlock<T>& block) {
  LipswishBackward<T> body{block};
  for_vectors<typename VectorOf<T>::type>(block.n, body);
  return sum_lanes(body.sum);
}

template <class T>
struct LipswishDoubleBackward {
  using V = typename VectorOf<T>::type;
  const LipswishBlock<T>& block;
  V sum{};

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const V x = get<Whole, V>(block.x + i, count);
    const Swish<V> at = swish<V>(x, block.b);
    const SwishCurves<V> curves = swish_curves(x, block.b, at);
    V g = get<Whole, V>(block.grad + i, count);
    if (block.grad_pair) g += get<Whole, V>(block.grad_pair + i, count);
    g *= block.scale;
    V h{};
    if (block.outer) h = get<Whole, V>(block.outer + i, count);
    const V to_grad = h * swish_slope(x, block.b, at) + swish_slope_b(x, at) * block.outer_b;
    put<Whole, V>(block.to_grad + i, to_grad * block.scale, count);
    if (block.to_grad_pair) put<Whole, V>(block.to_grad_pair + i, (to_grad - h) * block.scale, count);
    put<Whole, V>(block.out + i, g * (h * curves.xx + curves.xb * block.outer_b), count);
    sum += masked<Whole, V>(g * (h * curves.xb + curves.bb * block.outer_b), count);
  }
};

template <class T>
T lipswish_double_backward(const LipswishBlock<T>& block) {
  LipswishDoubleBackward<T> body{block};
  for_vectors<typename VectorOf<T>::type>(block.n, body);
  return sum_lanes(body.sum);
}

}  // namespace hk::HK_ISA
