// The types in which the mathematics is written: one scalar, or a vector of HK_LANES floats.
//
// Every formula under csrc/math is a template over V, which is `float`, `double` or `Floats`. A translation unit
// that compiles for one instruction set defines HK_ISA (a namespace of its own, so that the linker never mixes code
// of two instruction sets) and HK_LANES before it includes this header.
#pragma once

#include <cstdint>
#include <cstring>

#include "inline.h"

#if defined(__x86_64__) && !defined(__CUDACC__)
#include <immintrin.h>
#endif

namespace hk::HK_ISA {

template <class V>
struct Lanes;

template <>
struct Lanes<float> {
  using Int = int32_t;
  using Scalar = float;
  static constexpr int count = 1;
};

template <>
struct Lanes<double> {
  using Int = int64_t;
  using Scalar = double;
  static constexpr int count = 1;
};

#if HK_LANES > 1
typedef float Floats __attribute__((vector_size(4 * HK_LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * HK_LANES)));

template <>
struct Lanes<Floats> {
  using Int = Ints;
  using Scalar = float;
  static constexpr int count = HK_LANES;
};
#endif

template <class V>
using IntOf = typename Lanes<V>::Int;
template <class V>
using ScalarOf = typename Lanes<V>::Scalar;

// A comparison of vectors is a mask of lanes, of scalars a bool: both select with `? :`.
template <class M, class V>
HK_INLINE V select(M mask, V yes, V no) {
  return mask ? yes : no;
}

template <class V>
HK_INLINE V splat(ScalarOf<V> value) {
  return V{} + value;
}

template <class To, class From>
HK_INLINE To bits_as(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To out;
  memcpy(&out, &value, sizeof(To));
  return out;
}

template <class V>
HK_INLINE V load(const ScalarOf<V>* from) {
  V out;
  memcpy(&out, from, sizeof(V));
  return out;
}

template <class V>
HK_INLINE void store(ScalarOf<V>* to, V value) {
  memcpy(to, &value, sizeof(V));
}

// In these two, a NaN in `value` stays: the comparison is false, and x86's instructions return their second operand.
template <class V>
HK_INLINE V at_most(V value, ScalarOf<V> bound) {
  return select(splat<V>(bound) < value, splat<V>(bound), value);
}

template <class V>
HK_INLINE V at_least(V value, ScalarOf<V> bound) {
  return select(splat<V>(bound) > value, splat<V>(bound), value);
}

#if HK_LANES == 16
HK_INLINE Floats at_most(Floats value, float bound) {
  return bits_as<Floats>(_mm512_min_ps(_mm512_set1_ps(bound), bits_as<__m512>(value)));
}
HK_INLINE Floats at_least(Floats value, float bound) {
  return bits_as<Floats>(_mm512_max_ps(_mm512_set1_ps(bound), bits_as<__m512>(value)));
}
#elif HK_LANES == 8
HK_INLINE Floats at_most(Floats value, float bound) {
  return bits_as<Floats>(_mm256_min_ps(_mm256_set1_ps(bound), bits_as<__m256>(value)));
}
HK_INLINE Floats at_least(Floats value, float bound) {
  return bits_as<Floats>(_mm256_max_ps(_mm256_set1_ps(bound), bits_as<__m256>(value)));
}
#endif

HK_INLINE float absolute(float x) { return __builtin_fabsf(x); }
HK_INLINE double absolute(double x) { return __builtin_fabs(x); }
HK_INLINE float with_sign_of(float x, float sign) { return __builtin_copysignf(x, sign); }
HK_INLINE double with_sign_of(double x, double sign) { return __builtin_copysign(x, sign); }
HK_INLINE float times_sign_of(float x, float sign) { return __builtin_signbit(sign) ? -x : x; }
HK_INLINE double times_sign_of(double x, double sign) { return __builtin_signbit(sign) ? -x : x; }
HK_INLINE float minus_absolute(float x) { return -absolute(x); }
HK_INLINE double minus_absolute(double x) { return -absolute(x); }
#if HK_LANES > 1
HK_INLINE Floats minus_absolute(Floats x) { return bits_as<Floats>(bits_as<Ints>(x) | INT32_MIN); }
HK_INLINE Floats times_sign_of(Floats x, Floats sign) {
  return bits_as<Floats>(bits_as<Ints>(x) ^ (bits_as<Ints>(sign) & INT32_MIN));
}
HK_INLINE Floats absolute(Floats x) { return bits_as<Floats>(bits_as<Ints>(x) & 0x7fffffff); }
HK_INLINE Floats with_sign_of(Floats x, Floats sign) {
  return bits_as<Floats>((bits_as<Ints>(x) & 0x7fffffff) | (bits_as<Ints>(sign) & INT32_MIN));
}
#endif

// Whether any lane is at most `bound`.
HK_INLINE bool any_at_most(float x, float bound) { return x <= bound; }
HK_INLINE bool any_at_most(double x, double bound) { return x <= bound; }
#if HK_LANES == 16
HK_INLINE bool any_at_most(Floats x, float bound) {
  return _mm512_cmp_ps_mask(bits_as<__m512>(x), _mm512_set1_ps(bound), _CMP_LE_OQ) != 0;
}
#elif HK_LANES == 8
HK_INLINE bool any_at_most(Floats x, float bound) {
  return _mm256_movemask_ps(_mm256_cmp_ps(bits_as<__m256>(x), _mm256_set1_ps(bound), _CMP_LE_OQ)) != 0;
}
#elif HK_LANES > 1
HK_INLINE bool any_at_most(Floats x, float bound) {
  bool any = false;
  for (int i = 0; i < HK_LANES; ++i) any |= x[i] <= bound;
  return any;
}
#endif

// Stores past the cache, for outputs that would not survive in it; `finish_stores` makes them visible to others.
template <class V>
HK_INLINE void store_past_cache(ScalarOf<V>* to, V value) {
  store<V>(to, value);
}
HK_INLINE void finish_stores() {
#if defined(__x86_64__) && !defined(__CUDACC__)
  _mm_sfence();
#endif
}
#if HK_LANES == 16
HK_INLINE void store_past_cache(float* to, Floats value) { _mm512_stream_ps(to, bits_as<__m512>(value)); }
#elif HK_LANES == 8
HK_INLINE void store_past_cache(float* to, Floats value) { _mm256_stream_ps(to, bits_as<__m256>(value)); }
#endif

// The rounding error of the product p = a*b, so that a*b = p + error exactly.
HK_INLINE float product_error(float a, float b, float p) { return __builtin_fmaf(a, b, -p); }
HK_INLINE double product_error(double a, double b, double p) { return __builtin_fma(a, b, -p); }
#if HK_LANES > 1
#if HK_LANES == 16
HK_INLINE Floats product_error(Floats a, Floats b, Floats p) {
  return bits_as<Floats>(_mm512_fmsub_ps(bits_as<__m512>(a), bits_as<__m512>(b), bits_as<__m512>(p)));
}
#elif HK_LANES == 8
HK_INLINE Floats product_error(Floats a, Floats b, Floats p) {
  return bits_as<Floats>(_mm256_fmsub_ps(bits_as<__m256>(a), bits_as<__m256>(b), bits_as<__m256>(p)));
}
#else
// Dekker's product: halves of 12 bits multiply exactly. Their bits are cut off rather than rounded, so that nothing
// overflows.
HK_INLINE Floats upper_half(Floats x) { return bits_as<Floats>(bits_as<Ints>(x) & ~0xfff); }
HK_INLINE Floats product_error(Floats a, Floats b, Floats p) {
  const Floats ah = upper_half(a), al = a - ah, bh = upper_half(b), bl = b - bh;
  return ((ah * bh - p) + ah * bl + al * bh) + al * bl;
}
#endif
#endif

// Sum of the lanes in a fixed order (halves folded upon each other).
HK_INLINE float sum_lanes(float x) { return x; }
HK_INLINE double sum_lanes(double x) { return x; }
#if HK_LANES > 1
HK_INLINE float sum_lanes(Floats x) {
  float lane[HK_LANES];
  memcpy(lane, &x, sizeof(x));
  for (int width = HK_LANES / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  return lane[0];
}
#endif

}  // namespace hk::HK_ISA
