// Kernels of affine_coupling. The form is looked up at run time, once per thread and chunk; each form's loop is
// compiled on its own.
#pragma once

#include "../cuda/rows.cuh"

namespace hk::cuda {

template <class T>
struct CouplingForward {
  Walk walk;
  CouplingForm<T> form;
  View x, a, t, y;
  Totals log_det, log_det_out;
  double* partial;  // sums of the chunks, where a row has several
};

template <class T>
struct CouplingBackward {
  Walk walk;
  CouplingForm<T> form;
  int kind;  // Known of affine_coupling/math.h
  View known, a, t, grad_y, grad_x, grad_a, grad_t, x;
  Totals grad_log_det;
};

// Calls run<map>() of the form.
template <class Run>
__device__ __forceinline__ void for_form(int map, Run&& run) {
  switch (static_cast<ScaleMap>(map)) {
    case ScaleMap::exp:
      return run.template operator()<ScaleMap::exp>();
    case ScaleMap::sigmoid:
      return run.template operator()<ScaleMap::sigmoid>();
    case ScaleMap::tanh:
      return run.template operator()<ScaleMap::tanh>();
    case ScaleMap::atan:
      return run.template operator()<ScaleMap::atan>();
    case ScaleMap::softsign:
      return run.template operator()<ScaleMap::softsign>();
    case ScaleMap::softplus:
      return run.template operator()<ScaleMap::softplus>();
    case ScaleMap::sigmoid_eps:
      return run.template operator()<ScaleMap::sigmoid_eps>();
    default:
      return run.template operator()<ScaleMap::none>();
  }
}

template <ScaleMap Map, class X, class P, int N>
__device__ __forceinline__ double forward_share(const CouplingForward<Working<X>>& c, const Share& share) {
  using T = Working<X>;
  LogScaleSum<Map, T> log_scales{};
  double sum = 0;
  for (int64_t e = share.begin + lane_of(c.walk) * N; e < share.end; e += int64_t(c.walk.lanes) * N) {
    const Place at = place_of(c.walk, share.b, e);
    Raw<X, N> x;
    Raw<P, N> t, a;
    load(c.x, at, x);
    load(c.t, at, t);
    if constexpr (Map != ScaleMap::none) load(c.a, at, a);
    Raw<X, N> y;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const T shift = t[k] * c.form.shift_gain;
      if constexpr (Map == ScaleMap::none) {
        y.set(k, x[k] + shift);
      } else {
        const ScaleTerms<T> terms = scale_terms<Map>(a[k], c.form, c.form.negate);
        y.set(k, c.form.before ? (x[k] + shift) * terms.s : x[k] * terms.s + shift);
        log_scales.add(terms);
      }
    }
    store(c.y, place_of(c.walk, share.b, e), y);
    sum += static_cast<double>(log_scales.sum);
    log_scales.sum = 0;
  }
  log_scales.flush();
  sum += static_cast<double>(log_scales.sum);
  return c.form.negate ? -sum : sum;
}

template <class X, class P, int N>
__global__ void __launch_bounds__(block_threads, resident_blocks<X>)
    hk_affine_coupling_forward(CouplingForward<Working<X>> c) {
  for (unsigned round = 0; has_round(c.walk, round); ++round) {
    const Share share = share_of(c.walk, round);
    double sum = 0;
    if (share.active) for_form(c.form.map, [&]<ScaleMap Map>() { sum = forward_share<Map, X, P, N>(c, share); });
    sum = sum_group(sum, c.walk.lanes);
    if (share.active && lane_of(c.walk) == 0) {
      if (c.partial)
        c.partial[share.b * c.walk.chunks + share.chunk] = sum;
      else
        set_total(c.log_det_out, share.b, started(c.log_det, share.b, sum));
    }
  }
}

template <ScaleMap Map, class X, class P, int N>
__device__ __forceinline__ void backward_share(const CouplingBackward<Working<X>>& c, const Share& share) {
  using T = Working<X>;
  const Known kind = static_cast<Known>(c.kind);
  const bool from_output = kind != Known::input, recover = kind == Known::output_recover;
  const bool shift_read = reads_shift(c.form.before, kind);
  const T grad_log_det = c.grad_log_det.data ? static_cast<T>(total_at(c.grad_log_det, share.b)) : T(0);
  for (int64_t e = share.begin + lane_of(c.walk) * N; e < share.end; e += int64_t(c.walk.lanes) * N) {
    const Place at = place_of(c.walk, share.b, e);
    Raw<X, N> known, grad_y{};
    Raw<P, N> a, t{};
    load(c.known, at, known);
    if constexpr (Map != ScaleMap::none) load(c.a, at, a);
    if (shift_read) load(c.t, at, t);
    if (c.grad_y.data) load(c.grad_y, at, grad_y);
    Raw<X, N> x, grad_x;
    Raw<P, N> grad_a, grad_t;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      CouplingGradients<T> g;
      if constexpr (Map == ScaleMap::none)
        g = shift_backward(known[k], t[k], grad_y[k], c.form, from_output);
      else
        g = coupling_backward(scale_terms<Map>(a[k], c.form, c.form.negate), known[k], t[k], grad_y[k], grad_log_det,
                              c.form, c.form.before, from_output);
      x.set(k, g.x);
      grad_x.set(k, g.grad_x);
      if constexpr (Map != ScaleMap::none) grad_a.set(k, g.grad_a);
      grad_t.set(k, g.grad_t);
    }
    const Place to = place_of(c.walk, share.b, e);
    store(c.grad_x, to, grad_x);
    store(c.grad_t, to, grad_t);
    if constexpr (Map != ScaleMap::none) store(c.grad_a, to, grad_a);
    if (recover) store(c.x, to, x);
  }
}

template <class X, class P, int N>
__global__ void __launch_bounds__(block_threads, resident_blocks<X>)
    hk_affine_coupling_backward(CouplingBackward<Working<X>> c) {
  for (unsigned round = 0; has_round(c.walk, round); ++round) {
    const Share share = share_of(c.walk, round);
    if (share.active) for_form(c.form.map, [&]<ScaleMap Map>() { backward_share<Map, X, P, N>(c, share); });
  }
}

}  // namespace hk::cuda
