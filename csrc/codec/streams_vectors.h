// Vectors of doubles and of integers, of one instruction set: HK_LANES floats are two vectors of doubles.
#pragma once

#include "../math/elementary.h"
#include "streams.h"

namespace hk::codec::HK_ISA {

namespace math = hk::HK_ISA;
using math::Floats;

constexpr int half = HK_LANES / 2, group = HK_LANES, most_streams = 2 * group;
constexpr double one = 1 << 30, window = 4096, places = (1 << 24) - 4097;

typedef double Doubles __attribute__((vector_size(8 * half)));
typedef uint64_t Bits __attribute__((vector_size(8 * half)));
typedef float HalfFloats __attribute__((vector_size(4 * half)));
typedef int32_t HalfInts __attribute__((vector_size(4 * half)));

template <class To, class From>
HK_INLINE To as(From value) {
  return math::bits_as<To>(value);
}

template <class V>
HK_INLINE V read(const void* from) {
  V out;
  memcpy(&out, from, sizeof out);
  return out;
}

template <class V>
HK_INLINE void write(void* to, V value) {
  memcpy(to, &value, sizeof value);
}

#if HK_LANES == 16
HK_INLINE Doubles floor(Doubles x) { return as<Doubles>(_mm512_roundscale_pd(as<__m512d>(x), 0x09)); }
HK_INLINE Doubles floor_1024(Doubles x) { return as<Doubles>(_mm512_roundscale_pd(as<__m512d>(x), 0xa9)); }
HK_INLINE Doubles least(Doubles x, double y) { return as<Doubles>(_mm512_min_pd(as<__m512d>(x), _mm512_set1_pd(y))); }
HK_INLINE Doubles most(Doubles x, double y) { return as<Doubles>(_mm512_max_pd(as<__m512d>(x), _mm512_set1_pd(y))); }
HK_INLINE HalfInts integers(Doubles x) { return as<HalfInts>(_mm512_cvttpd_epi32(as<__m512d>(x))); }
HK_INLINE Doubles doubles(HalfInts x) { return as<Doubles>(_mm512_cvtepi32_pd(as<__m256i>(x))); }
HK_INLINE Doubles to_doubles(HalfFloats x) { return as<Doubles>(_mm512_cvtps_pd(as<__m256>(x))); }
HK_INLINE HalfFloats to_floats(Doubles x) { return as<HalfFloats>(_mm512_cvtpd_ps(as<__m512d>(x))); }
HK_INLINE Floats floor(Floats x) { return as<Floats>(_mm512_roundscale_ps(as<__m512>(x), 0x09)); }
HK_INLINE uint32_t mask(Bits of) { return _mm512_movepi64_mask(as<__m512i>(of)); }
HK_INLINE bool any(math::Ints of) { return _mm512_movepi32_mask(as<__m512i>(of)) != 0; }
#else
HK_INLINE Doubles floor(Doubles x) { return as<Doubles>(_mm256_floor_pd(as<__m256d>(x))); }
HK_INLINE Doubles floor_1024(Doubles x) { return floor(x * 1024) * (1.0 / 1024); }
HK_INLINE Doubles least(Doubles x, double y) { return as<Doubles>(_mm256_min_pd(as<__m256d>(x), _mm256_set1_pd(y))); }
HK_INLINE Doubles most(Doubles x, double y) { return as<Doubles>(_mm256_max_pd(as<__m256d>(x), _mm256_set1_pd(y))); }
HK_INLINE HalfInts integers(Doubles x) { return as<HalfInts>(_mm256_cvttpd_epi32(as<__m256d>(x))); }
HK_INLINE Doubles doubles(HalfInts x) { return as<Doubles>(_mm256_cvtepi32_pd(as<__m128i>(x))); }
HK_INLINE Doubles to_doubles(HalfFloats x) { return as<Doubles>(_mm256_cvtps_pd(as<__m128>(x))); }
HK_INLINE HalfFloats to_floats(Doubles x) { return as<HalfFloats>(_mm256_cvtpd_ps(as<__m256d>(x))); }
HK_INLINE Floats floor(Floats x) { return as<Floats>(_mm256_floor_ps(as<__m256>(x))); }
HK_INLINE uint32_t mask(Bits of) { return _mm256_movemask_pd(as<__m256d>(of)); }
HK_INLINE bool any(math::Ints of) { return _mm256_movemask_ps(as<__m256>(of)) != 0; }
#endif

// Entries of a table, loaded one by one: on Zen 4 the instruction for it takes a tenth longer over all of a decoder.
HK_INLINE Bits gather(const uint64_t* from, HalfInts at) {
  int32_t i[half];
  write(i, at);
  const auto pair = [&](int first) {
    const __m128i one = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + i[first])),
                  other = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + i[first + 1]));
    return _mm_castsi128_pd(_mm_unpacklo_epi64(one, other));
  };
  const __m256d low = _mm256_set_m128d(pair(2), pair(0));
#if HK_LANES == 16
  return as<Bits>(_mm512_insertf64x4(_mm512_castpd256_pd512(low), _mm256_set_m128d(pair(6), pair(4)), 1));
#else
  return as<Bits>(low);
#endif
}

HK_INLINE Doubles gather(const double* from, HalfInts at) {
  return as<Doubles>(gather(reinterpret_cast<const uint64_t*>(from), at));
}

// By registers: a vector that is stored in halves and read as a whole waits for both.
HK_INLINE Floats joined(HalfFloats first, HalfFloats second) {
#if HK_LANES == 16
  return as<Floats>(_mm512_insertf32x8(_mm512_castps256_ps512(as<__m256>(first)), as<__m256>(second), 1));
#else
  return as<Floats>(_mm256_set_m128(as<__m128>(second), as<__m128>(first)));
#endif
}

HK_INLINE HalfFloats part(Floats of, int which) {
  HalfFloats out;
  memcpy(&out, reinterpret_cast<const char*>(&of) + which * sizeof out, sizeof out);
  return out;
}

// Integers below 2^32 as doubles.
HK_INLINE Doubles small(Bits x) {
  const double shift = 4503599627370496.0;  // 2^52
  return as<Doubles>(x | as<Bits>(Doubles{} + shift)) - shift;
}

}  // namespace hk::codec::HK_ISA
