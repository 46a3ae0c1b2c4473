// Blocks of bfloat16 numbers for instructions that multiply pairs: a right operand lies as two halves of 16 columns,
// each [16 pairs of k][16 columns][2]. For AVX-512.
#pragma once

#include "blocks.h"

namespace hk::HK_ISA {

// The 16 x 16 matrix of 32-bit numbers `from`, rows 64 bytes apart, transposed.
HK_INLINE void transpose_words(const void* from, void* to) {
  __m512i a[16], b[16];
  const __m512i* rows = static_cast<const __m512i*>(from);
  for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(rows + i);
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
  // a[4g + j], 128-bit part q: column 4q + j of rows 4g..4g+3
  for (int j = 0; j < 4; ++j) {
    b[j] = _mm512_shuffle_i32x4(a[j], a[4 + j], 0x88);
    b[4 + j] = _mm512_shuffle_i32x4(a[j], a[4 + j], 0xdd);
    b[8 + j] = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0x88);
    b[12 + j] = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0xdd);
  }
  __m512i* out = static_cast<__m512i*>(to);
  for (int j = 0; j < 4; ++j) {
    _mm512_storeu_si512(out + j, _mm512_shuffle_i32x4(b[j], b[8 + j], 0x88));
    _mm512_storeu_si512(out + 8 + j, _mm512_shuffle_i32x4(b[j], b[8 + j], 0xdd));
    _mm512_storeu_si512(out + 4 + j, _mm512_shuffle_i32x4(b[4 + j], b[12 + j], 0x88));
    _mm512_storeu_si512(out + 12 + j, _mm512_shuffle_i32x4(b[4 + j], b[12 + j], 0xdd));
  }
}

struct Pairs {
  using E = Bf16;
  using T = float;
  using V = Floats;

  static void pack(const E* from, E* to) {
    alignas(64) static constexpr uint16_t first[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                       8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    const __m512i low = _mm512_load_si512(first), high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (int pair = 0; pair < 16; ++pair) {
      const __m512i even = _mm512_loadu_si512(from + 2 * pair * side),
                    odd = _mm512_loadu_si512(from + (2 * pair + 1) * side);
      _mm512_storeu_si512(to + pair * side, _mm512_permutex2var_epi16(even, low, odd));
      _mm512_storeu_si512(to + area / 2 + pair * side, _mm512_permutex2var_epi16(even, high, odd));
    }
  }
  static void pack_transposed(const E* from, E* to) {
    transpose_words(from, to);
    transpose_words(from + area / 2, to + area / 2);
  }
  static void transpose(const E* from, E* to) {
    alignas(64) E pairs[area];
    pack(from, pairs);
    pack_transposed(pairs, to);
  }

  // The left operand of a product over pixels, for a whole row of the result.
  template <class Engine>
  struct TransposedColumns {
    const E* left;
    TransposedColumns(const E* a, int64_t pace, int64_t depth, E* buffer) : left(buffer) {
      for (int64_t k = 0; k < depth; ++k) transpose(a + k * pace, buffer + k * area);
    }
    void product(const E* b, int64_t depth, T* c, bool accumulate) const {
      Engine::product(left, b, depth, c, accumulate);
    }
  };

  static HK_INLINE void store_row(E* to, const V* values) {
    const __m512bh row = _mm512_cvtne2ps_pbh(bits_as<__m512>(values[1]), bits_as<__m512>(values[0]));
    memcpy(to, &row, sizeof(row));
  }
  static HK_INLINE void load_row(V* values, const E* from) {
    for (int v = 0; v < 2; ++v) values[v] = load_numbers<V>(from + 16 * v);
  }
};

}  // namespace hk::HK_ISA
