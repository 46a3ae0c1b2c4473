// The loops of gaussian_log_prob.
#pragma once

#include "../cpu/kernels.h"
#include "../cpu/vectors.h"
#include "math.h"

namespace hk::HK_ISA {

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

}  // namespace hk::HK_ISA
