// Kernels for x86-64 processors with AVX-512 (F, BW, DQ, VL).
//
// The instruction set is chosen by a pragma for this file alone, after the standard headers, so that no function of
// the standard library is compiled for it and then shared with code for older processors.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif

#define __AVX512F__ 1
#define HK_ISA avx512
#define HK_LANES 16
#include "kernels_impl.h"

namespace hk {

const Kernels<float>& avx512_kernels() {
  static const Kernels<float> table = HK_ISA::make_kernels<float>("avx512");
  return table;
}

}  // namespace hk

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
