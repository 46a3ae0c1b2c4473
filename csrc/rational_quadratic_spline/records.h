// Parameters of several elements, from where they lie element by element to vectors of elements, and back.
#pragma once

#include "../cpu/vectors.h"

namespace hk::HK_ISA {

#if HK_LANES > 1 && defined(__x86_64__)

#if HK_LANES == 16
using Register = __m512;
HK_INLINE Register four_records(const float* from, int64_t step) {
  const Register low = _mm512_castps128_ps512(_mm_loadu_ps(from));
  const Register two = _mm512_insertf32x4(low, _mm_loadu_ps(from + 4 * step), 1);
  const Register three = _mm512_insertf32x4(two, _mm_loadu_ps(from + 8 * step), 2);
  return _mm512_insertf32x4(three, _mm_loadu_ps(from + 12 * step), 3);
}
HK_INLINE void put_records(float* to, int64_t step, Register value) {
  _mm_storeu_ps(to, _mm512_castps512_ps128(value));
  _mm_storeu_ps(to + 4 * step, _mm512_extractf32x4_ps(value, 1));
  _mm_storeu_ps(to + 8 * step, _mm512_extractf32x4_ps(value, 2));
  _mm_storeu_ps(to + 12 * step, _mm512_extractf32x4_ps(value, 3));
}
HK_INLINE Register low_pairs(Register a, Register b) { return _mm512_unpacklo_ps(a, b); }
HK_INLINE Register high_pairs(Register a, Register b) { return _mm512_unpackhi_ps(a, b); }
HK_INLINE Register low_halves(Register a, Register b) {
  return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
HK_INLINE Register high_halves(Register a, Register b) {
  return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
#elif HK_LANES == 8
using Register = __m256;
HK_INLINE Register four_records(const float* from, int64_t step) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from)), _mm_loadu_ps(from + 4 * step), 1);
}
HK_INLINE void put_records(float* to, int64_t step, Register value) {
  _mm_storeu_ps(to, _mm256_castps256_ps128(value));
  _mm_storeu_ps(to + 4 * step, _mm256_extractf128_ps(value, 1));
}
HK_INLINE Register low_pairs(Register a, Register b) { return _mm256_unpacklo_ps(a, b); }
HK_INLINE Register high_pairs(Register a, Register b) { return _mm256_unpackhi_ps(a, b); }
HK_INLINE Register low_halves(Register a, Register b) {
  return _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
}
HK_INLINE Register high_halves(Register a, Register b) {
  return _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
}
#else
using Register = __m128;
HK_INLINE Register four_records(const float* from, int64_t) { return _mm_loadu_ps(from); }
HK_INLINE void put_records(float* to, int64_t, Register value) { _mm_storeu_ps(to, value); }
HK_INLINE Register low_pairs(Register a, Register b) { return _mm_unpacklo_ps(a, b); }
HK_INLINE Register high_pairs(Register a, Register b) { return _mm_unpackhi_ps(a, b); }
HK_INLINE Register low_halves(Register a, Register b) {
  return _mm_castpd_ps(_mm_unpacklo_pd(_mm_castps_pd(a), _mm_castps_pd(b)));
}
HK_INLINE Register high_halves(Register a, Register b) {
  return _mm_castpd_ps(_mm_unpackhi_pd(_mm_castps_pd(a), _mm_castps_pd(b)));
}
#endif

// Four by four numbers in each quarter of four registers, turned.
HK_INLINE void turn(Register (&r)[4]) {
  const Register a = low_pairs(r[0], r[1]), b = high_pairs(r[0], r[1]);
  const Register c = low_pairs(r[2], r[3]), d = high_pairs(r[2], r[3]);
  r[0] = low_halves(a, c);
  r[1] = high_halves(a, c);
  r[2] = low_halves(b, d);
  r[3] = high_halves(b, d);
}

// Numbers p of as many records of `count` >= 4 numbers as a vector has lanes, to rows[p].
HK_INLINE void load_records(const float* from, int64_t count, float* rows) {
  for (int64_t p = 0; p < count; p += 4) {
    if (p + 4 > count) p = count - 4;  // the last ones anew
    Register r[4];
    for (int k = 0; k < 4; ++k) r[k] = four_records(from + k * count + p, count);
    turn(r);
    for (int k = 0; k < 4; ++k) memcpy(rows + (p + k) * HK_LANES, &r[k], sizeof(Register));
  }
}

HK_INLINE void store_records(const float* rows, int64_t count, float* to) {
  for (int64_t p = 0; p < count; p += 4) {
    if (p + 4 > count) p = count - 4;
    Register r[4];
    for (int k = 0; k < 4; ++k) memcpy(&r[k], rows + (p + k) * HK_LANES, sizeof(Register));
    turn(r);
    for (int k = 0; k < 4; ++k) put_records(to + k * count + p, count, r[k]);
  }
}

#elif HK_LANES > 1

HK_INLINE void load_records(const float* from, int64_t count, float* rows) {
  for (int64_t p = 0; p < count; ++p)
    for (int64_t k = 0; k < HK_LANES; ++k) rows[p * HK_LANES + k] = from[k * count + p];
}

HK_INLINE void store_records(const float* rows, int64_t count, float* to) {
  for (int64_t k = 0; k < HK_LANES; ++k)
    for (int64_t p = 0; p < count; ++p) to[k * count + p] = rows[p * HK_LANES + k];
}

#endif

}  // namespace hk::HK_ISA
