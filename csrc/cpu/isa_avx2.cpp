// Kernels for x86-64 processors with AVX2 and FMA.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "target.h"

HK_TARGET_BEGIN("avx2,fma")

#define HK_ISA avx2
#define HK_LANES 8
#include "kernels_impl.h"

namespace hk {

const Kernels<float>& avx2_kernels() {
  static const Kernels<float> table = HK_ISA::make_kernels<float>("avx2");
  return table;
}

}  // namespace hk

HK_TARGET_END
#endif
