// Coupling networks on x86-64 processors with AVX2 and FMA.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "../cpu/target.h"

HK_TARGET_BEGIN("avx2,fma")

#define HK_ISA avx2
#define HK_LANES 8
#include "network_impl.h"

namespace hk::network {

const Kernels& avx2_kernels() {
  static const Kernels table = HK_ISA::make_network_kernels<HK_ISA::Widening<float, float, 4, 2>>("avx2");
  return table;
}

const Kernels& avx2_bf16_kernels() {
  static const Kernels table = HK_ISA::make_network_kernels<HK_ISA::Widening<Bf16, float, 4, 2>>("avx2");
  return table;
}

}  // namespace hk::network

HK_TARGET_END
#endif
