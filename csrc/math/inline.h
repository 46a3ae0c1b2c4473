// Functions of csrc/math run on the CPU and, where nvcc compiles them, on the GPU.
#pragma once

#if defined(__CUDACC__)
#define HK_INLINE __host__ __device__ __forceinline__
#else
#define HK_INLINE inline __attribute__((always_inline))
#endif
