// Kernels of rounding_coupling.
#pragma once

#include "../cuda/rows.cuh"

namespace hk::cuda {

struct RoundingForward {
  Walk walk;
  View x, t, y;
  Totals beta;  // absent: 1
  double sign;
};

struct RoundingBackward {
  Walk walk;
  View grad, t, grad_t;
  Totals beta, grad_beta;
  double* partial;  // one a block, where there are several
  double sign;
};

// Never contracted with what follows: every backend rounds the same number.
HK_INLINE float rounded_product(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}
HK_INLINE double rounded_product(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

template <class X, class P, int N>
__global__ void __launch_bounds__(block_threads, resident_blocks<X>) hk_rounding_coupling_forward(RoundingForward c) {
  using T = Working<X>;
  const T beta = c.beta.data ? static_cast<T>(total_at(c.beta, 0)) : T(1), sign = static_cast<T>(c.sign);
  for (unsigned round = 0; has_round(c.walk, round); ++round) {
    const Share share = share_of(c.walk, round);
    for (int64_t e = share.begin + lane_of(c.walk) * N; e < share.end; e += int64_t(c.walk.lanes) * N) {
      const Place at = place_of(c.walk, share.b, e);
      Raw<X, N> x;
      Raw<P, N> t;
      load(c.x, at, x);
      load(c.t, at, t);
      Raw<X, N> y;
#pragma unroll
      for (int k = 0; k < N; ++k) y.set(k, x[k] + round_even(rounded_product(t[k], beta)) * sign);
      store(c.y, at, y);
    }
  }
}

template <class X, class P, int N>
__global__ void __launch_bounds__(block_threads, resident_blocks<X>) hk_rounding_coupling_backward(RoundingBackward c) {
  using T = Working<X>;
  const T factor = static_cast<T>(c.sign) * static_cast<T>(total_at(c.beta, 0));
  double total = 0;
  for (unsigned round = 0; has_round(c.walk, round); ++round) {
    const Share share = share_of(c.walk, round);
    for (int64_t e = share.begin + lane_of(c.walk) * N; e < share.end; e += int64_t(c.walk.lanes) * N) {
      const Place at = place_of(c.walk, share.b, e);
      Raw<X, N> grad;
      Raw<P, N> t;
      load(c.grad, at, grad);
      load(c.t, at, t);
      Raw<P, N> grad_t;
      T sum = 0;
#pragma unroll
      for (int k = 0; k < N; ++k) {
        sum += grad[k] * t[k];
        grad_t.set(k, grad[k] * factor);
      }
      store(c.grad_t, at, grad_t);
      total += static_cast<double>(sum);
    }
  }
  total = sum_group(total, block_threads);
  if (threadIdx.x != 0) return;
  if (c.partial)
    c.partial[blockIdx.x] = total;
  else
    set_total(c.grad_beta, 0, c.sign * total);
}

}  // namespace hk::cuda
