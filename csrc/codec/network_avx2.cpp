// Integer networks on x86-64 processors with AVX2.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "../cpu/target.h"

HK_TARGET_BEGIN("avx2")

#define HK_ISA avx2
#include "network_impl.h"

namespace hk::codec {
namespace avx2 {

// Pairs of products of numbers widened to 16 bits: the instruction for 8 bits saturates.
struct Pairs {
  using Activation = int16_t;
  using Weight = int16_t;
  using Vector = __m256i;
  static constexpr int64_t lanes = 8, group = 2, blocks = 2, pixels = 6;
  static constexpr bool finishes_lanes = false;

  static HK_INLINE Vector zero() { return _mm256_setzero_si256(); }
  static HK_INLINE Vector load(const Weight* p) { return _mm256_loadu_si256(reinterpret_cast<const Vector*>(p)); }
  static HK_INLINE Vector broadcast(const Activation* p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return _mm256_set1_epi32(pair);
  }
  static HK_INLINE Vector add(Vector sum, Vector a, Vector w) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, w)); }
  static HK_INLINE void store(int32_t* p, Vector v) { _mm256_storeu_si256(reinterpret_cast<Vector*>(p), v); }
};

}  // namespace avx2

const NetworkKernels& avx2_network() {
  static const NetworkKernels table = HK_ISA::make_network<avx2::Pairs>("avx2");
  return table;
}

}  // namespace hk::codec

HK_TARGET_END
#endif
