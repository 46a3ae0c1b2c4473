// The loops of affine_coupling, one instantiation a form.
#pragma once

#include "../cpu/kernels.h"
#include "../cpu/vectors.h"
#include "math.h"

namespace hk::HK_ISA {

template <ScaleMap Map, bool Negate, bool Before, class T>
struct CouplingForward {
  using V = typename VectorOf<T>::type;
  const CouplingBlock<T>& block;
  const CouplingForm<T> k;  // a copy: what is written through T* cannot be it
  LogScaleSum<Map, V> log_scales{};

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    if (block.n > short_row) {
      look_ahead<false>(i, block.known, block.t, block.a);
      if (!block.stream) look_ahead<true>(i, block.y);
    }
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
T coupling_forward(const CouplingBlock<T>& block, const CouplingForm<T>& k) {
  CouplingForward<Map, Negate, Before, T> body{block, k};
  for_vectors<typename VectorOf<T>::type>(block.n, body);
  body.log_scales.flush();
  if (block.stream) finish_stores();
  return Negate ? -sum_lanes(body.log_scales.sum) : sum_lanes(body.log_scales.sum);
}

template <ScaleMap Map, bool Negate, bool Before, Known Known_, class T>
struct CouplingBackward {
  using V = typename VectorOf<T>::type;
  const CouplingBlock<T>& block;
  const CouplingForm<T> k;  // a copy: what is written through T* cannot be it

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    if (block.n > short_row) {
      look_ahead<false>(i, block.known, block.t, block.a, block.grad_y);
      if (!block.stream) look_ahead<true>(i, block.grad_x, block.grad_t, block.grad_a, block.x);
    }
    const V grad_y = block.grad_y ? get<Whole, V>(block.grad_y + i, count) : V{};
    const V a = Map == ScaleMap::none ? V{} : get<Whole, V>(block.a + i, count);
    V t{};
    if constexpr (needs_shift<Before, Known_>) t = get<Whole, V>(block.t + i, count);
    const CouplingGradients<V> g = coupling_backward<Map, Negate, Before, Known_>(get<Whole, V>(block.known + i, count),
                                                                                  a, t, grad_y, block.grad_log_det, k);
    put_streaming<Whole, V>(block.grad_x + i, g.grad_x, block.stream, count);
    put_streaming<Whole, V>(block.grad_t + i, g.grad_t, block.stream, count);
    if constexpr (Map != ScaleMap::none) put_streaming<Whole, V>(block.grad_a + i, g.grad_a, block.stream, count);
    if constexpr (Known_ == Known::output_recover) put_streaming<Whole, V>(block.x + i, g.x, block.stream, count);
  }
};

template <ScaleMap Map, bool Negate, bool Before, Known Known_, class T>
void coupling_backward_block(const CouplingBlock<T>& block, const CouplingForm<T>& k) {
  CouplingBackward<Map, Negate, Before, Known_, T> body{block, k};
  for_vectors<typename VectorOf<T>::type>(block.n, body);
  if (block.stream) finish_stores();
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

}  // namespace hk::HK_ISA
