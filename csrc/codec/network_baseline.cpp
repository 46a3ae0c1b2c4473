// Integer networks on every processor of the architecture.
#include <cstdint>
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#define HK_ISA baseline
#include "network_impl.h"

namespace hk::codec {
namespace baseline {

#if defined(__x86_64__)
// Pairs of 16-bit products, which SSE2 has.
struct Pairs {
  using Activation = int16_t;
  using Weight = int16_t;
  using Vector = __m128i;
  static constexpr int64_t lanes = 4, group = 2, blocks = 2, pixels = 4;
  static constexpr bool finishes_lanes = false;

  static HK_INLINE Vector zero() { return _mm_setzero_si128(); }
  static HK_INLINE Vector load(const Weight* p) { return _mm_loadu_si128(reinterpret_cast<const Vector*>(p)); }
  static HK_INLINE Vector broadcast(const Activation* p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return _mm_set1_epi32(pair);
  }
  static HK_INLINE Vector add(Vector sum, Vector a, Vector w) { return _mm_add_epi32(sum, _mm_madd_epi16(a, w)); }
  static HK_INLINE void store(int32_t* p, Vector v) { _mm_storeu_si128(reinterpret_cast<Vector*>(p), v); }
};
#else
struct Pairs {
  struct Vector {
    int32_t at[4][2];
  };
  using Activation = int16_t;
  using Weight = int16_t;
  static constexpr int64_t lanes = 4, group = 2, blocks = 2, pixels = 2;
  static constexpr bool finishes_lanes = false;

  static HK_INLINE Vector zero() { return {}; }
  static HK_INLINE Vector load(const Weight* p) {
    Vector v;
    for (int i = 0; i < 8; ++i) v.at[i / 2][i % 2] = p[i];
    return v;
  }
  static HK_INLINE Vector broadcast(const Activation* p) {
    Vector v;
    for (int i = 0; i < 8; ++i) v.at[i / 2][i % 2] = p[i % 2];
    return v;
  }
  static HK_INLINE Vector add(Vector sum, const Vector& a, const Vector& w) {
    for (int i = 0; i < 4; ++i) sum.at[i][0] += a.at[i][0] * w.at[i][0] + a.at[i][1] * w.at[i][1];
    return sum;
  }
  static HK_INLINE void store(int32_t* p, const Vector& v) {
    for (int i = 0; i < 4; ++i) p[i] = v.at[i][0];
  }
};
#endif

}  // namespace baseline

const NetworkKernels& baseline_network() {
  static const NetworkKernels table = HK_ISA::make_network<baseline::Pairs>("baseline");
  return table;
}

}  // namespace hk::codec
