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
HK_INLINE void turn(Register* r) {
  const Register a = low_pairs(r[0], r[1]), b = high_pairs(r[0], r[1]);
  const Register c = low_pairs(r[2], r[3]), d = high_pairs(r[2], r[3]);
  r[0] = low_halves(a, c);
  r[1] = high_halves(a, c);
  r[2] = low_halves(b, d);
  r[3] = high_halves(b, d);
}

template <int Count>
HK_INLINE void load_group(const float* from, int64_t step, Register* r) {
  static_assert(Count == 4);
  for (int k = 0; k < 4; ++k) r[k] = four_records(from + k * step, step);
  turn(r);
}
template <int Count>
HK_INLINE void store_group(Register* r, float* to, int64_t step) {
  static_assert(Count == 4);
  turn(r);
  for (int k = 0; k < 4; ++k) put_records(to + k * step, step, r[k]);
}

#if HK_LANES == 16
// Eight numbers of a record at once are half as many loads and stores as twice four.
HK_INLINE Register two_records(const float* from, int64_t step) {
  const __m512d low = _mm512_castpd256_pd512(_mm256_castps_pd(_mm256_loadu_ps(from)));
  return _mm512_castpd_ps(_mm512_insertf64x4(low, _mm256_castps_pd(_mm256_loadu_ps(from + 4 * step)), 1));
}
template <>
HK_INLINE void load_group<8>(const float* from, int64_t step, Register* r) {
  Register half[8];  // quarters: four numbers of a record, the next four, and those of the fourth record from there
  for (int k = 0; k < 8; ++k) half[k] = two_records(from + (k < 4 ? k : k + 4) * step, step);
  turn(half);
  turn(half + 4);
  for (int k = 0; k < 4; ++k) {
    r[k] = _mm512_shuffle_f32x4(half[k], half[k + 4], 0x88);
    r[k + 4] = _mm512_shuffle_f32x4(half[k], half[k + 4], 0xdd);
  }
}
template <>
HK_INLINE void store_group<8>(Register* r, float* to, int64_t step) {
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11),
                second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  Register half[8];
  for (int k = 0; k < 4; ++k) {
    const __m512d a = _mm512_castps_pd(r[k]), b = _mm512_castps_pd(r[k + 4]);
    half[k] = _mm512_castpd_ps(_mm512_permutex2var_pd(a, first, b));
    half[k + 4] = _mm512_castpd_ps(_mm512_permutex2var_pd(a, second, b));
  }
  turn(half);
  turn(half + 4);
  for (int k = 0; k < 8; ++k) {
    float* at = to + (k < 4 ? k : k + 4) * step;
    _mm256_storeu_ps(at, _mm512_castps512_ps256(half[k]));
    _mm256_storeu_ps(at + 4 * step, _mm512_extractf32x8_ps(half[k], 1));
  }
}
constexpr int64_t most_together = 8;
#else
constexpr int64_t most_together = 4;
#endif

// Calls run.operator()<Count>(p) for groups of numbers from p that together are all `count` >= 4; some come twice.
template <class Run>
HK_INLINE void for_groups(int64_t count, const Run& run) {
  int64_t p = 0;
  if (count >= most_together) {
    for (; p + 4 < count; p += most_together)
      run.template operator()<most_together>(std::min(p, count - most_together));
  }
  for (; p < count; p += 4) run.template operator()<4>(std::min(p, count - 4));
}

// How far ahead, in numbers, records and their places are asked for. The processor's own prefetching ends with a page,
// and a page is 44 elements of eight bins.
constexpr int64_t ahead = 768;

// Numbers p of as many records of `count` >= 4 numbers as a vector has lanes, to rows[p].
HK_INLINE void load_records(const float* from, int64_t count, float* rows) {
  for_groups(count, [&]<int Count>(int64_t p) __attribute__((always_inline)) {
    Register r[Count];
    load_group<Count>(from + p, count, r);
    for (int k = 0; k < Count; ++k) {
      memcpy(rows + (p + k) * HK_LANES, &r[k], sizeof(Register));
      __builtin_prefetch(from + (p + k) * HK_LANES + ahead, 0);
    }
  });
}

// The other way; number(p) are numbers p.
template <class Number>
HK_INLINE void store_records(int64_t count, float* to, const Number& number) {
  for_groups(count, [&]<int Count>(int64_t p) __attribute__((always_inline)) {
    Register r[Count];
    for (int k = 0; k < Count; ++k) {
      r[k] = bits_as<Register>(number(p + k));
      __builtin_prefetch(to + (p + k) * HK_LANES + ahead, 1);
    }
    store_group<Count>(r, to + p, count);
  });
}

#elif HK_LANES > 1

HK_INLINE void load_records(const float* from, int64_t count, float* rows) {
  for (int64_t p = 0; p < count; ++p)
    for (int64_t k = 0; k < HK_LANES; ++k) rows[p * HK_LANES + k] = from[k * count + p];
}

template <class Number>
HK_INLINE void store_records(int64_t count, float* to, const Number& number) {
  for (int64_t p = 0; p < count; ++p) {
    const Floats row = number(p);
    for (int64_t k = 0; k < HK_LANES; ++k) to[k * count + p] = row[k];
  }
}

#endif

}  // namespace hk::HK_ISA
