// What becomes of the sums of a layer, 16 output channels at a time; included where the code of an instruction set with
// AVX-512 is compiled, as HK_ISA.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "network.h"

namespace hk::codec::HK_ISA {

// (value * factor + 2**(shift - 1)) >> shift, held to 30 bits, of 64-bit lanes whose lower halves hold the operands.
HK_INLINE __m512i shifted_halves(__m512i value, __m512i factor, __m512i shift) {
  const __m512i one = _mm512_set1_epi64(1), most = _mm512_set1_epi64(1 << 30), least = _mm512_set1_epi64(-(1 << 30));
  const __m512i half = _mm512_sllv_epi64(one, _mm512_sub_epi64(shift, one));
  const __m512i moved = _mm512_srav_epi64(_mm512_add_epi64(_mm512_mul_epi32(value, factor), half), shift);
  return _mm512_max_epi64(_mm512_min_epi64(moved, most), least);
}

HK_INLINE __m512i upper_halves(__m512i v) { return _mm512_srli_epi64(v, 32); }

HK_INLINE __m512i shifted_lanes(__m512i value, __m512i factor, __m512i shift) {
  const __m512i even = shifted_halves(value, factor, _mm512_and_si512(shift, _mm512_set1_epi64(0xffffffff)));
  const __m512i others = shifted_halves(upper_halves(value), upper_halves(factor), upper_halves(shift));
  return _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(others, 32));
}

HK_INLINE void store_activations(uint8_t* to, __mmask16 lanes, __m512i v) {
  _mm_mask_storeu_epi8(to, lanes, _mm512_cvtepi32_epi8(v));
}
HK_INLINE void store_activations(int16_t* to, __mmask16 lanes, __m512i v) {
  _mm256_mask_storeu_epi16(to, lanes, _mm512_cvtepi32_epi16(v));
}

// As Runner::finish, for a layer that is not the last and whose table holds 0 to 255.
template <class Activation>
HK_INLINE void finish_lanes(const Layer& layer, int64_t first, int64_t count, const int32_t* sums, int16_t* stream,
                            Activation* to) {
  const __m512i zero = _mm512_setzero_si512();
  for (int64_t c = 0; c < count; c += 16) {
    const __mmask16 lanes = count - c < 16 ? static_cast<__mmask16>((1u << (count - c)) - 1) : 0xffff;
    const auto load = [&](const int32_t* p) { return _mm512_maskz_loadu_epi32(lanes, p + c); };
    const __m512i sum = _mm512_add_epi32(load(sums), load(layer.bias + first));
    __m512i value = shifted_lanes(sum, load(layer.factor + first), load(layer.shift + first));
    if (layer.mode != to_table) {
      if (layer.mode == add_stream)
        value = _mm512_add_epi32(value, _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(lanes, stream + c)));
      value = _mm512_max_epi32(_mm512_min_epi32(value, _mm512_set1_epi32(32767)), _mm512_set1_epi32(-32768));
      _mm256_mask_storeu_epi16(stream + c, lanes, _mm512_cvtepi32_epi16(value));
      value = shifted_lanes(value, _mm512_set1_epi32(static_cast<int32_t>(layer.stream_factor)),
                            _mm512_set1_epi32(static_cast<int32_t>(layer.stream_shift)));
    }
    value = _mm512_add_epi32(value, _mm512_set1_epi32(static_cast<int32_t>(layer.offset)));
    store_activations(to + c, lanes, _mm512_min_epi32(_mm512_max_epi32(value, zero), _mm512_set1_epi32(255)));
  }
}

}  // namespace hk::codec::HK_ISA
