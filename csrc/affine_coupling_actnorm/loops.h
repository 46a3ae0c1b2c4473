// The loops of affine_coupling_actnorm: whole rows, of which the last elements are transformed. A row of a flow on
// vectors is a few machine vectors long, so the loop over rows is in here too.
#pragma once

#include "../affine_coupling/math.h"
#include "../cpu/kernels.h"
#include "../cpu/vectors.h"

namespace hk::HK_ISA {

// Brings nearer the row that comes some rows later: the processor's own prefetching ends with a page of 4 KiB, which is
// few rows. What lies there need not belong to the array.
constexpr int64_t ahead_bytes = 4096;
template <bool Write, class T>
HK_INLINE void look_ahead_row(const T* row, int64_t elements) {
  constexpr int64_t line = 64 / sizeof(T);
  const T* later = row + ahead_bytes / sizeof(T);
  for (int64_t i = 0; i < elements; i += line) __builtin_prefetch(later + i, Write);
}

// y = scale*x + offset.
template <class T>
struct ActnormKept {
  using V = typename VectorOf<T>::type;
  const T *x, *scale, *offset;
  T* y;

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const V x_i = get<Whole, V>(x + i, count), scale_i = get<Whole, V>(scale + i, count);
    put<Whole, V>(y + i, x_i * scale_i + get<Whole, V>(offset + i, count), count);
  }
};

// y = scale*u + offset, u being the output of the coupling.
template <ScaleMap Map, class T>
struct ActnormCoupled {
  using V = typename VectorOf<T>::type;
  const T *x, *a, *t, *scale, *offset;
  T* y;
  const CouplingForm<T>& k;
  LogScaleSum<Map, V> log_scales{};

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const V x_i = get<Whole, V>(x + i, count), shift = get<Whole, V>(t + i, count) * k.shift_gain;
    ScaleTerms<V> terms = scale_terms<Map>(get<Whole, V>(a + i, count), k, k.negate);
    const V u = k.before ? (x_i + shift) * terms.s : x_i * terms.s + shift;
    put<Whole, V>(y + i, u * get<Whole, V>(scale + i, count) + get<Whole, V>(offset + i, count), count);
    terms.log_s = masked<Whole, V>(terms.log_s, count);
    terms.log_term = masked<Whole, V>(terms.log_term, count);
    log_scales.add(terms);
  }
};

template <ScaleMap Map, class T>
void actnorm_forward(const ActnormRows<T>& rows, const CouplingForm<T>& form) {
  using V = typename VectorOf<T>::type;
  const CouplingForm<T> k = form;  // a copy: what is written through T* cannot be it
  const int64_t kept = rows.width - rows.coupled;
  for (int64_t r = 0; r < rows.rows; ++r) {
    const T *x = rows.x + r * rows.x_stride, *params = rows.params + r * rows.params_stride;
    T* y = rows.y + r * rows.width;
    look_ahead_row<false>(x, rows.width);
    look_ahead_row<false>(params, 2 * rows.coupled);
    look_ahead_row<true>(y, rows.width);
    ActnormKept<T> first{x, rows.scale, rows.offset, y};
    for_vectors<V>(kept, first);
    ActnormCoupled<Map, T> second{
        x + kept, params + rows.a_place, params + rows.t_place, rows.scale + kept, rows.offset + kept, y + kept, k};
    for_vectors<V>(rows.coupled, second);
    second.log_scales.flush();
    const T sum = sum_lanes(second.log_scales.sum);
    rows.log_dets[r] = static_cast<double>(k.negate ? -sum : sum);
  }
}

template <class T>
struct ActnormKeptGradients {
  using V = typename VectorOf<T>::type;
  const T *x, *scale, *grad_y;
  T *grad_x, *grad_scale, *grad_offset;

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const V g = get<Whole, V>(grad_y + i, count);
    put<Whole, V>(grad_x + i, g * get<Whole, V>(scale + i, count), count);
    put_or_add<Whole, V>(grad_scale + i, g * get<Whole, V>(x + i, count), true, count);
    put_or_add<Whole, V>(grad_offset + i, g, true, count);
  }
};

template <ScaleMap Map, class T>
struct ActnormCoupledGradients {
  using V = typename VectorOf<T>::type;
  const T *x, *a, *t, *scale, *grad_y;
  T grad_log_det;
  T *grad_x, *grad_a, *grad_t, *grad_scale, *grad_offset;
  const CouplingForm<T>& k;

  template <bool Whole>
  HK_INLINE void step(int64_t i, int64_t count) {
    const V g = get<Whole, V>(grad_y + i, count), x_i = get<Whole, V>(x + i, count);
    const V t_i = get<Whole, V>(t + i, count), shift = t_i * k.shift_gain;
    const ScaleTerms<V> terms = scale_terms<Map>(get<Whole, V>(a + i, count), k, k.negate);
    const V u = k.before ? (x_i + shift) * terms.s : x_i * terms.s + shift;
    const CouplingGradients<V> grads =
        coupling_backward(terms, x_i, t_i, g * get<Whole, V>(scale + i, count), grad_log_det, k, k.before, false);
    put<Whole, V>(grad_x + i, grads.grad_x, count);
    put<Whole, V>(grad_a + i, grads.grad_a, count);
    put<Whole, V>(grad_t + i, grads.grad_t, count);
    put_or_add<Whole, V>(grad_scale + i, g * u, true, count);
    put_or_add<Whole, V>(grad_offset + i, g, true, count);
  }
};

template <ScaleMap Map, class T>
void actnorm_backward(const ActnormRows<T>& rows, const CouplingForm<T>& form) {
  using V = typename VectorOf<T>::type;
  const CouplingForm<T> k = form;  // a copy: what is written through T* cannot be it
  const int64_t kept = rows.width - rows.coupled;
  for (int64_t r = 0; r < rows.rows; ++r) {
    const T *x = rows.x + r * rows.x_stride, *params = rows.params + r * rows.params_stride;
    const T* grad_y = rows.grad_y + r * rows.grad_y_stride;
    T *grad_x = rows.grad_x + r * rows.width, *grad_params = rows.grad_params + r * 2 * rows.coupled;
    look_ahead_row<false>(x, rows.width);
    look_ahead_row<false>(params, 2 * rows.coupled);
    look_ahead_row<false>(grad_y, rows.width);
    look_ahead_row<true>(grad_x, rows.width);
    look_ahead_row<true>(grad_params, 2 * rows.coupled);
    ActnormKeptGradients<T> first{x, rows.scale, grad_y, grad_x, rows.grad_scale, rows.grad_offset};
    for_vectors<V>(kept, first);
    ActnormCoupledGradients<Map, T> second{x + kept,
                                           params + rows.a_place,
                                           params + rows.t_place,
                                           rows.scale + kept,
                                           grad_y + kept,
                                           rows.grad_log_det[r],
                                           grad_x + kept,
                                           grad_params + rows.a_place,
                                           grad_params + rows.t_place,
                                           rows.grad_scale + kept,
                                           rows.grad_offset + kept,
                                           k};
    for_vectors<V>(rows.coupled, second);
  }
}

template <ScaleMap Map, class T>
void fill_actnorm(Kernels<T>& table) {
  table.actnorm_forward[static_cast<int>(Map)] = actnorm_forward<Map, T>;
  table.actnorm_backward[static_cast<int>(Map)] = actnorm_backward<Map, T>;
}

}  // namespace hk::HK_ISA
