// The loop of adamax.
#pragma once

#include "../cpu/kernels.h"
#include "../cpu/vectors.h"

namespace hk::HK_ISA {

template <class T>
struct AdamaxStep {
  using V = typename VectorOf<T>::type;
  const AdamaxBlock<T>& block;
  const AdamaxConstants<T>& c;

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const V param = get<Whole, V>(block.param + i, count);
    V grad = get<Whole, V>(block.grad + i, count);
    if (c.weight_decay != 0) grad = grad + param * c.weight_decay;  // an infinite parameter times 0 would be NaN
    const V average = get<Whole, V>(block.exp_avg + i, count);
    const V change = grad - average;  // from the nearer end: the rounding of the other would stay in what is left of it
    const V moved = c.share < T(0.5) ? average + change * c.share : grad - change * (1 - c.share);
    const V fallen = get<Whole, V>(block.exp_inf + i, count) * c.beta2;
    const V now = absolute(grad) + c.eps;
    const V larger = select(fallen >= now, fallen, now);         // NaN in the gradient stays,
    const V largest = select(fallen >= fallen, larger, fallen);  // and so does that of exp_inf
    put<Whole, V>(block.exp_avg + i, moved, count);
    put<Whole, V>(block.exp_inf + i, largest, count);
    put<Whole, V>(block.param + i, param - moved / largest * c.rate, count);
  }
};

template <class T>
void adamax_step(const AdamaxBlock<T>& block, const AdamaxConstants<T>& constants) {
  AdamaxStep<T> body{block, constants};
  for_vectors<typename VectorOf<T>::type>(block.n, body);
}

}  // namespace hk::HK_ISA
