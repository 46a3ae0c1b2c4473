// Kernels of discretized_logistic.
#pragma once

#include "rows.cuh"

namespace hk::cuda {

template <class T>
struct LogisticForward {
  Walk walk;
  BinNumbers<T> bin;
  View x, mean, log_scale, out;  // out: absent where only the rows' sums are wanted
  Totals total;
  double* partial;
};

template <class T>
struct LogisticBackward {
  Walk walk;
  BinNumbers<T> bin;
  View grad, x, mean, log_scale, grad_x, grad_mean, grad_log_scale;
  Totals grad_each;  // where the rows were summed
};

// Gradients of parameters that the batch shares. A block walks `columns` vectors of columns, a power of two, over the
// rows of one slab; its other threads take other rows of the slab.
template <class T>
struct LogisticShared {
  LogisticBackward<T> call;
  int columns;
  int64_t tiles, slabs, slab_rows;
  T* partial;  // [slab][mean, log_scale][row]
};

template <class T>
struct FinishColumns {
  Walk walk;
  const T* partial;
  View grad_mean, grad_log_scale;
  int columns;
  int64_t tiles, slabs;
};

template <class X, class P, int N>
__global__ void __launch_bounds__(block_threads, resident_blocks<X>)
    hk_discretized_logistic_forward(LogisticForward<Working<X>> c) {
  using T = Working<X>;
  HK_FOR_UNITS(c.walk, first) {
    const Share share = share_of(c.walk, first);
    double sum = 0;
    for (int64_t e = share.begin + lane_of(c.walk) * N; e < share.end; e += int64_t(c.walk.lanes) * N) {
      const Place at = place_of(c.walk, share.b, e);
      Raw<X, N> x;
      Raw<P, N> mean, log_scale;
      load(c.x, at, x);
      load(c.mean, at, mean);
      load(c.log_scale, at, log_scale);
      T log_p[N], part = 0;
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const ScalePart<T> scale = scale_part(log_scale[k], c.bin);
        const LogisticValue<T> value = logistic_value(x[k], mean[k], scale, c.bin);
        log_p[k] = logarithm(scale.mass / value.rest) - (value.outside + scale.excess);
        part += log_p[k];
      }
      sum += static_cast<double>(part);
      if (c.out.data) store<X>(c.out, at, log_p);
    }
    if (!c.total.data) continue;
    const double total = sum_group(sum, c.walk.lanes);
    if (share.active && lane_of(c.walk) == 0) {
      if (c.partial)
        c.partial[share.b * c.walk.chunks + share.chunk] = total;
      else
        set_total(c.total, share.b, total);
    }
  }
}

template <class X, class P, int N>
__global__ void __launch_bounds__(block_threads, resident_blocks<X>)
    hk_discretized_logistic_backward(LogisticBackward<Working<X>> c) {
  using T = Working<X>;
  HK_FOR_UNITS(c.walk, first) {
    const Share share = share_of(c.walk, first);
    const T grad_each = share.active && c.grad_each.data ? static_cast<T>(total_at(c.grad_each, share.b)) : T(0);
    for (int64_t e = share.begin + lane_of(c.walk) * N; e < share.end; e += int64_t(c.walk.lanes) * N) {
      const Place at = place_of(c.walk, share.b, e);
      Raw<X, N> x, grad{};
      Raw<P, N> mean, log_scale;
      load(c.x, at, x);
      load(c.mean, at, mean);
      load(c.log_scale, at, log_scale);
      if (c.grad.data) load(c.grad, at, grad);
      T grad_x[N], grad_mean[N], grad_log_scale[N];
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const LogisticSlopes<T> slopes = logistic_slopes(x[k], mean[k], scale_part(log_scale[k], c.bin), c.bin);
        const T upstream = c.grad.data ? grad[k] : grad_each;
        grad_x[k] = upstream * slopes.slope_x;
        grad_mean[k] = -grad_x[k];
        grad_log_scale[k] = upstream * slopes.slope_log_scale;
      }
      store<X>(c.grad_x, at, grad_x);
      store<P>(c.grad_mean, at, grad_mean);
      store<P>(c.grad_log_scale, at, grad_log_scale);
    }
  }
}

// Sum over the threads of a block that share a column, in a fixed order; those of the first row have it.
template <class T>
__device__ __forceinline__ T sum_over_rows(T value, int columns, T* shared) {
  shared[threadIdx.x] = value;
  __syncthreads();
  for (int half = block_threads / 2; half >= columns; half >>= 1) {
    if (threadIdx.x < unsigned(half)) shared[threadIdx.x] += shared[threadIdx.x + half];
    __syncthreads();
  }
  const T sum = shared[threadIdx.x];
  __syncthreads();
  return sum;
}

template <class X, class P, int N>
__global__ void __launch_bounds__(block_threads, blocks_with_more_registers)
    hk_discretized_logistic_backward_shared(LogisticShared<Working<X>> s) {
  using T = Working<X>;
  __shared__ T shared[block_threads];
  const LogisticBackward<T>& c = s.call;
  const int64_t tile = blockIdx.x % s.tiles, slab = blockIdx.x / s.tiles;
  const int column = threadIdx.x & (s.columns - 1), rows_at_once = block_threads / s.columns;
  const int64_t e = (tile * s.columns + column) * N;
  const int64_t last = (slab + 1) * s.slab_rows < c.walk.rows ? (slab + 1) * s.slab_rows : c.walk.rows;
  T sum_mean[N] = {}, sum_log_scale[N] = {};
  if (e < c.walk.row) {
    Raw<P, N> mean, log_scale;
    Place at = place_of(c.walk, 0, e);
    load(c.mean, at, mean);
    load(c.log_scale, at, log_scale);
    for (at.b = slab * s.slab_rows + threadIdx.x / unsigned(s.columns); at.b < last; at.b += rows_at_once) {
      Raw<X, N> x, grad{};
      load(c.x, at, x);
      if (c.grad.data) load(c.grad, at, grad);
      const T grad_each = c.grad_each.data ? static_cast<T>(total_at(c.grad_each, at.b)) : T(0);
      T grad_x[N];
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const LogisticSlopes<T> slopes = logistic_slopes(x[k], mean[k], scale_part(log_scale[k], c.bin), c.bin);
        const T upstream = c.grad.data ? grad[k] : grad_each;
        grad_x[k] = upstream * slopes.slope_x;
        sum_mean[k] -= grad_x[k];
        sum_log_scale[k] += upstream * slopes.slope_log_scale;
      }
      store<X>(c.grad_x, at, grad_x);
    }
  }
#pragma unroll
  for (int k = 0; k < N; ++k) {
    sum_mean[k] = sum_over_rows(sum_mean[k], s.columns, shared);
    sum_log_scale[k] = sum_over_rows(sum_log_scale[k], s.columns, shared);
  }
  if (threadIdx.x >= unsigned(s.columns) || e >= c.walk.row) return;
  T* to = s.partial + slab * 2 * c.walk.row + e;
#pragma unroll
  for (int k = 0; k < N; ++k) {
    to[k] = sum_mean[k];
    to[c.walk.row + k] = sum_log_scale[k];
  }
}

template <class T>
__global__ void __launch_bounds__(block_threads) hk_finish_columns(FinishColumns<T> f) {
  __shared__ double shared[block_threads];
  const int column = threadIdx.x & (f.columns - 1), rows_at_once = block_threads / f.columns;
  const int64_t e = int64_t(blockIdx.x) * f.columns + column;
  double sum_mean = 0, sum_log_scale = 0;
  if (e < f.walk.row) {
    for (int64_t slab = threadIdx.x / unsigned(f.columns); slab < f.slabs; slab += rows_at_once) {
      sum_mean += f.partial[slab * 2 * f.walk.row + e];
      sum_log_scale += f.partial[slab * 2 * f.walk.row + f.walk.row + e];
    }
  }
  sum_mean = sum_over_rows(sum_mean, f.columns, shared);
  sum_log_scale = sum_over_rows(sum_log_scale, f.columns, shared);
  if (threadIdx.x >= unsigned(f.columns) || e >= f.walk.row) return;
  const Place at = place_of(f.walk, 0, e);
  set_any(f.grad_mean.data, offset_of(f.grad_mean, at), f.grad_mean.element, sum_mean);
  set_any(f.grad_log_scale.data, offset_of(f.grad_log_scale, at), f.grad_log_scale.element, sum_log_scale);
}

}  // namespace hk::cuda
