// Integer networks on x86-64 processors with AVX-512 and its VNNI.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "../cpu/target.h"

HK_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2")

#define HK_ISA vnni
#include "finish_avx512.h"
#include "network_impl.h"

namespace hk::codec {
namespace vnni {

// Dot products of four unsigned activations with four signed weights, without saturation.
struct Quads {
  using Activation = uint8_t;
  using Weight = int8_t;
  using Vector = __m512i;
  static constexpr int64_t lanes = 16, group = 4, blocks = 4, pixels = 6;
  static constexpr bool finishes_lanes = true;

  static HK_INLINE Vector zero() { return _mm512_setzero_si512(); }
  static HK_INLINE Vector load(const Weight* p) { return _mm512_loadu_si512(p); }
  static HK_INLINE Vector broadcast(const Activation* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
  }
  static HK_INLINE Vector add(Vector sum, Vector a, Vector w) { return _mm512_dpbusd_epi32(sum, a, w); }
  static HK_INLINE void store(int32_t* p, Vector v) { _mm512_storeu_si512(p, v); }
};

}  // namespace vnni

const NetworkKernels& vnni_network() {
  static const NetworkKernels table = HK_ISA::make_network<vnni::Quads>("vnni");
  return table;
}

}  // namespace hk::codec

HK_TARGET_END
#endif
