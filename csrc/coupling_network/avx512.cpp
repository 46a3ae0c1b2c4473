// Coupling networks on x86-64 processors with AVX-512 (F, BW, DQ, VL).
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "../cpu/target.h"

HK_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")

#define HK_ISA avx512
#define HK_LANES 16
#include "network_impl.h"

namespace hk::network {

const Kernels& avx512_kernels() {
  static const Kernels table = HK_ISA::make_network_kernels<HK_ISA::Widening<float, float, 8, 2>>("avx512");
  return table;
}

const Kernels& avx512_widened_kernels() {
  static const Kernels table = HK_ISA::make_network_kernels<HK_ISA::Widening<Bf16, float, 8, 2>>("avx512");
  return table;
}

}  // namespace hk::network

HK_TARGET_END
#endif
