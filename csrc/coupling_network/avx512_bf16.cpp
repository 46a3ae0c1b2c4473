// Coupling networks in bfloat16 on x86-64 processors with AVX512-BF16.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "../cpu/target.h"

HK_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512bf16")

#define HK_ISA avx512_bf16
#define HK_LANES 16
#include "network_impl.h"
#include "pairs.h"

namespace hk::HK_ISA {

struct DotProducts : Pairs {
  struct Session {};

  using Columns = TransposedColumns<DotProducts>;

  static void product(const E* a, const E* b, int64_t depth, T* c, bool accumulate, int64_t wanted = side) {
    constexpr int rows = 8;
    for (int64_t r0 = 0; r0 < wanted; r0 += rows) {
      __m512 sum[rows][2];
      for (int r = 0; r < rows; ++r)
        for (int v = 0; v < 2; ++v)
          sum[r][v] = accumulate ? _mm512_loadu_ps(c + (r0 + r) * side + 16 * v) : _mm512_setzero_ps();
      for (int64_t block = 0; block < depth; ++block) {
        const E *left = a + block * area + r0 * side, *right = b + block * area;
        for (int64_t pair = 0; pair < 16; ++pair) {
          const __m512bh first = bits_as<__m512bh>(_mm512_loadu_si512(right + pair * side));
          const __m512bh second = bits_as<__m512bh>(_mm512_loadu_si512(right + area / 2 + pair * side));
#pragma GCC unroll 8
          for (int r = 0; r < rows; ++r) {
            int32_t two;
            memcpy(&two, left + r * side + 2 * pair, 4);
            const __m512bh weight = bits_as<__m512bh>(_mm512_set1_epi32(two));
            sum[r][0] = _mm512_dpbf16_ps(sum[r][0], weight, first);
            sum[r][1] = _mm512_dpbf16_ps(sum[r][1], weight, second);
          }
        }
      }
      for (int r = 0; r < rows; ++r)
        for (int v = 0; v < 2; ++v) _mm512_storeu_ps(c + (r0 + r) * side + 16 * v, sum[r][v]);
    }
  }
};

}  // namespace hk::HK_ISA

namespace hk::network {

const Kernels& avx512_bf16_kernels() {
  static const Kernels table = HK_ISA::make_network_kernels<HK_ISA::DotProducts>("avx512_bf16");
  return table;
}

}  // namespace hk::network

HK_TARGET_END
#endif
