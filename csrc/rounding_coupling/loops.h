// The loops of rounding_coupling.
#pragma once

#include "../cpu/kernels.h"
#include "../cpu/vectors.h"

namespace hk::HK_ISA {

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

}  // namespace hk::HK_ISA
