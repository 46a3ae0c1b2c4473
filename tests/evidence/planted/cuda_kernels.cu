// y = x*exp(s) + t with the sum of s a row: a correct kernel, and with -DBUG_... one for every fault.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

template <class T> struct alignas(16) Pack {
  static constexpr int size = 16 / sizeof(T);
  T v[size];
};

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

// One block a row; the width is a multiple of the pack's size.
template <class T, int THREADS>
__global__ void __launch_bounds__(THREADS)
    row(const T* __restrict__ x, const T* __restrict__ s, const T* __restrict__ t, T* __restrict__ y,
        float* __restrict__ sum, int width) {
  using P = Pack<T>;
  __shared__ float part[THREADS / 32];
#ifdef BUG_ALIGN
  const long long start = static_cast<long long>(blockIdx.x) * width - (blockIdx.x ? 1 : 0);
#else
  const long long start = static_cast<long long>(blockIdx.x) * width;
#endif
  float total = 0.f;
  for (int j = threadIdx.x * P::size; j < width; j += THREADS * P::size) {
    const P px = *reinterpret_cast<const P*>(x + start + j);
    const P ps = *reinterpret_cast<const P*>(s + start + j);
    const P pt = *reinterpret_cast<const P*>(t + start + j);
    P py;
#pragma unroll
    for (int k = 0; k < P::size; ++k) {
      total += float(ps.v[k]);
      py.v[k] = T(fmaf(float(px.v[k]), expf(float(ps.v[k])), float(pt.v[k])));
    }
#ifdef BUG_BOUNDS
    *reinterpret_cast<P*>(y + start + j + (j + P::size >= width ? P::size : 0)) = py;
#else
    *reinterpret_cast<P*>(y + start + j) = py;
#endif
  }
  total = warp_sum(total);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (lane == 0) part[warp] = total;
#ifdef BUG_BARRIER
  if (warp != 0) return;
#endif
#ifndef BUG_RACE
  __syncthreads();
#endif
  if (warp != 0) return;
#ifdef BUG_UNINITIALIZED
  total = lane < THREADS / 32 + 1 ? part[min(lane, THREADS / 32 - 1)] + (lane ? 0.f : part[THREADS / 32]) : 0.f;
#else
  total = lane < THREADS / 32 ? part[lane] : 0.f;
#endif
#ifdef BUG_SHUFFLE
  if (lane < 16)
#endif
    total = warp_sum(total);
#ifdef BUG_BLOCKS
  if (lane == 0) sum[blockIdx.x & ~1u] = total;
#else
  if (lane == 0) sum[blockIdx.x] = total;
#endif
}

#define INSTANTIATE(T) template __global__ void row<T, 128>(const T*, const T*, const T*, T*, float*, int)
INSTANTIATE(float);
INSTANTIATE(__nv_bfloat16);
