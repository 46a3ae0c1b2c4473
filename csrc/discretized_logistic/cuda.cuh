// Kernels of discretized_logistic.
#pragma once

#include "../cuda/rows.cuh"

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
  for (unsigned round = 0; has_round(c.walk, round); ++round) {
    const Share share = share_of(c.walk, round);
    double sum = 0;
    for (int64_t e = share.begin + lane_of(c.walk) * N; e < share.end; e += int64_t(c.walk.lanes) * N) {
      const Place at = place_of(c.walk, share.b, e);
      Raw<X, N> x;
      Raw<P, N> mean, log_scale;
      load(c.x, at, x);
      load(c.mean, at, mean);
      load(c.log_scale, at, log_scale);
      Raw<X, N> log_p;
      T part = 0;
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const ScalePart<T> scale = scale_part(log_scale[k], c.bin);
        const LogisticValue<T> value = logistic_value(x[k], mean[k], scale, c.bin);
        const T one = logarithm(scale.mass / value.rest) - (value.outside + scale.excess);
        log_p.set(k, one);
        part += one;
      }
      sum += static_cast<double>(part);
      if (c.out.data) store(c.out, at, log_p);
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
  for (unsigned round = 0; has_round(c.walk, round); ++round) {
    const Share share = share_of(c.walk, round);
    const T grad_each = share.active && c.grad_each.data ? static_cast<T>(total_at(c.grad_each, share.b)) : T(0);
    for (int64_t e = share.begin + lane_of(c.walk) * N; e < share.end; e += int64_t(c.walk.lanes) * N) {
      const Place at = place_of(c.walk, share.b, e);
      Raw<X, N> x, grad{};
      Raw<P, N> mean, log_scale;
      load(c.x, at, x);
      load(c.mean, at, mean);
      load(c.log_scale, at, log_scale);
      if (c.grad.data) load(c.grad, at, grad);
      Raw<X, N> grad_x;
      Raw<P, N> grad_mean, grad_log_scale;
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const LogisticSlopes<T> slopes = logistic_slopes(x[k], mean[k], scale_part(log_scale[k], c.bin), c.bin);
        const T upstream = c.grad.data ? grad[k] : grad_each, slope = upstream * slopes.slope_x;
        grad_x.set(k, slope);
        grad_mean.set(k, -slope);
        grad_log_scale.set(k, upstream * slopes.slope_log_scale);
      }
      const Place to = place_of(c.walk, share.b, e);
      store(c.grad_x, to, grad_x);
      store(c.grad_mean, to, grad_mean);
      store(c.grad_log_scale, to, grad_log_scale);
    }
  }
}

// Sums over the threads of a block that share a column, in a fixed order, of `count` numbers a thread, of which number
// j lies at sums[j * block_threads + thread]; those of the first row have the result. The block meets before and after.
template <int count, class T>
__device__ __forceinline__ void sum_over_rows(T* sums, int columns) {
  __syncthreads();
  for (int half = block_threads / 2; half >= columns; half >>= 1) {
    if (threadIdx.x < unsigned(half)) {
#pragma unroll
      for (int j = 0; j < count; ++j) {
        T* at = sums + j * block_threads + threadIdx.x;
        at[0] += at[half];
      }
    }
    __syncthreads();
  }
}

// What depends on the scale alone, kept in shared memory while a thread walks over its rows: in registers, the four
// numbers an element would leave room for too few threads.
template <class T, int N>
struct KeptScales {
  static constexpr int numbers = 4 * N * block_threads;
  T* memory;

  __device__ __forceinline__ T* of(int k) const {
    return memory + 4 * (k * block_threads + forgotten(static_cast<int>(threadIdx.x)));
  }
  __device__ __forceinline__ void keep(int k, const ScalePart<T>& scale) {
    T* at = of(k);
    at[0] = scale.inverse, at[1] = scale.inverse_low, at[2] = scale.exp_h, at[3] = scale.mass;
  }
  __device__ __forceinline__ ScalePart<T> kept(int k) const {
    const T* at = of(k);
    return {at[0], at[1], at[2], at[3], T(0)};
  }
};

// N numbers to N successive ones, which lie as an access of 16 bytes wants them where N > 1.
template <int N, class T>
__device__ __forceinline__ void store_run(T* to, const T* from, int step) {
  if constexpr (N == 1) {
    *to = *from;
  } else {
    Raw<T, N> run;
#pragma unroll
    for (int k = 0; k < N; ++k) run.set(k, from[k * step]);
    write_run(reinterpret_cast<char*>(to), run);
  }
}

template <class X, class P, int N>
__global__ void __launch_bounds__(block_threads, resident_blocks<X>)
    hk_discretized_logistic_backward_shared(LogisticShared<Working<X>> s) {
  using T = Working<X>;
  alignas(16) __shared__ T memory[KeptScales<T, N>::numbers];  // of the scales, then of the sums
  KeptScales<T, N> scales{memory};
  const LogisticBackward<T>& c = s.call;
  const int64_t tile = blockIdx.x % s.tiles, slab = blockIdx.x / s.tiles;
  const int column = threadIdx.x & (s.columns - 1), rows_at_once = block_threads / s.columns;
  const int64_t e = (tile * s.columns + column) * N;
  const int64_t last = (slab + 1) * s.slab_rows < c.walk.rows ? (slab + 1) * s.slab_rows : c.walk.rows;
  T sum_mean[N] = {}, sum_log_scale[N] = {};
  if (e < c.walk.row) {
    Raw<P, N> mean, log_scale;
    const Place first = place_of(c.walk, 0, e);
    load(c.mean, first, mean);
    load(c.log_scale, first, log_scale);
#pragma unroll
    for (int k = 0; k < N; ++k) scales.keep(k, scale_part(log_scale[k], c.bin));
    for (int64_t b = slab * s.slab_rows + threadIdx.x / unsigned(s.columns); b < last; b += rows_at_once) {
      const Place at = place_of(c.walk, b, e);
      Raw<X, N> x, grad{}, grad_x;
      load(c.x, at, x);
      if (c.grad.data) load(c.grad, at, grad);
      const T grad_each = c.grad_each.data ? static_cast<T>(total_at(c.grad_each, b)) : T(0);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const LogisticSlopes<T> slopes = logistic_slopes(x[k], mean[k], scales.kept(k), c.bin);
        const T upstream = c.grad.data ? grad[k] : grad_each, slope = upstream * slopes.slope_x;
        grad_x.set(k, slope);
        sum_mean[k] -= slope;
        sum_log_scale[k] += upstream * slopes.slope_log_scale;
      }
      store(c.grad_x, place_of(c.walk, b, e), grad_x);
    }
  }
  __syncthreads();  // nobody needs the scales any more
  T* own = memory + threadIdx.x;
#pragma unroll
  for (int k = 0; k < N; ++k) {
    own[k * block_threads] = sum_mean[k];
    own[(N + k) * block_threads] = sum_log_scale[k];
  }
  sum_over_rows<2 * N>(memory, s.columns);
  if (threadIdx.x >= unsigned(s.columns) || e >= c.walk.row) return;
  T* to = s.partial + slab * 2 * c.walk.row + e;
  store_run<N>(to, own, block_threads);
  store_run<N>(to + c.walk.row, own + N * block_threads, block_threads);
}

template <class T>
__global__ void __launch_bounds__(block_threads) hk_finish_columns(FinishColumns<T> f) {
  __shared__ double sums[2 * block_threads];
  const int column = threadIdx.x & (f.columns - 1), rows_at_once = block_threads / f.columns;
  const int64_t e = int64_t(blockIdx.x) * f.columns + column;
  double sum_mean = 0, sum_log_scale = 0;
  if (e < f.walk.row) {
    for (int64_t slab = threadIdx.x / unsigned(f.columns); slab < f.slabs; slab += rows_at_once) {
      sum_mean += f.partial[slab * 2 * f.walk.row + e];
      sum_log_scale += f.partial[slab * 2 * f.walk.row + f.walk.row + e];
    }
  }
  double* own = sums + threadIdx.x;
  own[0] = sum_mean;
  own[block_threads] = sum_log_scale;
  sum_over_rows<2>(sums, f.columns);
  if (threadIdx.x >= unsigned(f.columns) || e >= f.walk.row) return;
  const Place at = place_of(f.walk, 0, e);
  set_any(f.grad_mean.data, offset_of(f.grad_mean, at), f.grad_mean.element, own[0]);
  set_any(f.grad_log_scale.data, offset_of(f.grad_log_scale, at), f.grad_log_scale.element, own[block_threads]);
}

}  // namespace hk::cuda
