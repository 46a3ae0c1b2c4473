// Streams side by side on x86-64 processors with AVX2.
//
// The instruction set is chosen by a pragma for this file alone, after the standard headers, so that no function of
// the standard library is compiled for it and then shared with code for older processors.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#define HK_ISA avx2
#define HK_LANES 8
#include "streams_impl.h"

namespace hk::codec {

const StreamKernels& avx2_streams() {
  static const StreamKernels table{HK_ISA::most_streams, &HK_ISA::decode, &HK_ISA::places_of};
  return table;
}

}  // namespace hk::codec

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
