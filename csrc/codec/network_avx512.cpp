// Integer networks on x86-64 processors with AVX-512 (F, BW, DQ, VL).
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "../cpu/target.h"

HK_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2")

#define HK_ISA avx512
#include "finish_avx512.h"
#include "network_impl.h"

namespace hk::codec {
namespace avx512 {

// Pairs of products of numbers widened to 16 bits: the instruction for 8 bits saturates.
struct Pairs {
  using Activation = int16_t;
  using Weight = int16_t;
  using Vector = __m512i;
  static constexpr int64_t lanes = 16, group = 2, blocks = 4, pixels = 6;
  static constexpr bool finishes_lanes = true;

  static HK_INLINE Vector zero() { return _mm512_setzero_si512(); }
  static HK_INLINE Vector load(const Weight* p) { return _mm512_loadu_si512(p); }
  static HK_INLINE Vector broadcast(const Activation* p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return _mm512_set1_epi32(pair);
  }
  static HK_INLINE Vector add(Vector sum, Vector a, Vector w) { return _mm512_add_epi32(sum, _mm512_madd_epi16(a, w)); }
  static HK_INLINE void store(int32_t* p, Vector v) { _mm512_storeu_si512(p, v); }
};

}  // namespace avx512

const NetworkKernels& avx512_network() {
  static const NetworkKernels table = HK_ISA::make_network<avx512::Pairs>("avx512");
  return table;
}

}  // namespace hk::codec

HK_TARGET_END
#endif
