// Kernels for x86-64 processors with AVX-512 (F, BW, DQ, VL).
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "target.h"

HK_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")

#define HK_ISA avx512
#define HK_LANES 16
#include "kernels_impl.h"

namespace hk {

const Kernels<float>& avx512_kernels() {
  static const Kernels<float> table = HK_ISA::make_kernels<float>("avx512");
  return table;
}

}  // namespace hk

HK_TARGET_END
#endif
