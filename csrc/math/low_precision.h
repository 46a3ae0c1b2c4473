// bfloat16 and float16 as bits, converted without branches so that loops of them become vector code; on a GPU, where
// one instruction does it, by that. All of them round to nearest even.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "inline.h"

namespace hk {

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

HK_INLINE float float_of_bits(uint32_t bits) {
  float out;
  memcpy(&out, &bits, 4);
  return out;
}

HK_INLINE uint32_t bits_of_float(float value) {
  uint32_t out;
  memcpy(&out, &value, 4);
  return out;
}

template <class T>
HK_INLINE T widen(float value) {
  return static_cast<T>(value);
}

template <class T>
HK_INLINE T widen(double value) {
  return static_cast<T>(value);
}

template <class T>
HK_INLINE T widen(Bf16 value) {
  return static_cast<T>(float_of_bits(static_cast<uint32_t>(value.bits) << 16));
}

// The exponent is moved by a multiplication, which also makes subnormals right; infinity and NaN get theirs set.
template <class T>
HK_INLINE T widen(F16 value) {
#if defined(__CUDA_ARCH__)
  float wide;
  asm volatile("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));  // volatile: where it is used, not before
  return static_cast<T>(wide);
#else
  const uint32_t magnitude = static_cast<uint32_t>(value.bits & 0x7fff) << 13;
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16;
  const uint32_t finite = bits_of_float(float_of_bits(magnitude) * 5.192296858534828e33f);  // 2^112
  const uint32_t special = magnitude | 0x7f800000u;
  return static_cast<T>(float_of_bits(sign | (magnitude >= 0x0f800000u ? special : finite)));
#endif
}

template <class To, class T>
struct Narrow;

template <class T>
struct Narrow<float, T> {
  HK_INLINE static float of(T value) { return static_cast<float>(value); }
};
template <class T>
struct Narrow<double, T> {
  HK_INLINE static double of(T value) { return static_cast<double>(value); }
};

// Round to nearest even; NaN stays NaN.
template <class T>
struct Narrow<Bf16, T> {
  HK_INLINE static Bf16 of(T value) {
#if defined(__CUDA_ARCH__)
    uint16_t out;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out) : "f"(static_cast<float>(value)));
    return {out};
#else
    const uint32_t bits = bits_of_float(static_cast<float>(value));
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return {static_cast<uint16_t>(nan ? 0x7fc0u | (bits >> 16) : rounded)};
#endif
  }
};

// Round to nearest even: subnormals by adding a number whose last place is theirs, normals by integer rounding.
template <class T>
struct Narrow<F16, T> {
  HK_INLINE static F16 of(T value) {
#if defined(__CUDA_ARCH__)
    uint16_t out;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out) : "f"(static_cast<float>(value)));
    return {out};
#else
    const uint32_t bits = bits_of_float(static_cast<float>(value));
    const uint32_t magnitude = bits & 0x7fffffffu, sign = (bits >> 16) & 0x8000u;
    const uint32_t subnormal = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t normal = (magnitude + 0xc8000fffu + ((magnitude >> 13) & 1u)) >> 13;
    const uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
    return {static_cast<uint16_t>(sign | (magnitude >= 0x477ff000u ? special : finite))};
#endif
  }
};

template <class To, class T>
HK_INLINE To narrow(T value) {
  return Narrow<To, T>::of(value);
}

// Two of them in a word, the first one in its lower half: that one, or the other.
template <class T, class E>
HK_INLINE T widen_of_pair(uint32_t word, bool other) {
  return widen<T>(E{static_cast<uint16_t>(other ? word >> 16 : word & 0xffffu)});
}
template <class To, class T>
HK_INLINE uint32_t narrow_pair(T first, T second) {
#if defined(__CUDA_ARCH__)
  uint32_t out;
  const float lo = static_cast<float>(first), hi = static_cast<float>(second);
  if constexpr (std::is_same_v<To, Bf16>)
    asm volatile("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(hi), "f"(lo));
  else
    asm volatile("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(hi), "f"(lo));
  return out;
#else
  return narrow<To>(first).bits | static_cast<uint32_t>(narrow<To>(second).bits) << 16;
#endif
}

}  // namespace hk
