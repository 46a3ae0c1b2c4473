// Vectors of elements of a block, the last of which may be partial; included after HK_ISA and HK_LANES are set.
#pragma once

#include <type_traits>

#include "../math/lanes.h"
#include "../math/pair.h"

namespace hk::HK_ISA {

template <class T>
struct VectorOf {
  using type = T;
};
#if HK_LANES > 1
template <>
struct VectorOf<float> {
  using type = Floats;
};
#endif

// The first `count` lanes of the last, partial vector of a block, by one instruction where there is one: a copy of so
// many bytes is a call, and a load of the whole that waits for it. Rows of few elements consist of little else.
#if HK_LANES == 16
HK_INLINE __mmask16 first_lanes(int64_t count) { return static_cast<__mmask16>((1u << count) - 1); }
HK_INLINE Floats load_first(const float* from, int64_t count) {
  return bits_as<Floats>(_mm512_maskz_loadu_ps(first_lanes(count), from));
}
HK_INLINE void store_first(float* to, Floats value, int64_t count) {
  _mm512_mask_storeu_ps(to, first_lanes(count), bits_as<__m512>(value));
}
HK_INLINE Floats keep_first(Floats value, int64_t count) {
  return bits_as<Floats>(_mm512_maskz_mov_ps(first_lanes(count), bits_as<__m512>(value)));
}
#elif HK_LANES == 8
HK_INLINE __m256i first_lanes(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
HK_INLINE Floats load_first(const float* from, int64_t count) {
  return bits_as<Floats>(_mm256_maskload_ps(from, first_lanes(count)));
}
HK_INLINE void store_first(float* to, Floats value, int64_t count) {
  _mm256_maskstore_ps(to, first_lanes(count), bits_as<__m256>(value));
}
HK_INLINE Floats keep_first(Floats value, int64_t count) {
  return bits_as<Floats>(_mm256_and_ps(bits_as<__m256>(value), _mm256_castsi256_ps(first_lanes(count))));
}
#endif
template <class V>
HK_INLINE V load_first(const ScalarOf<V>* from, int64_t count) {
  V out{};
  memcpy(&out, from, count * sizeof(ScalarOf<V>));
  return out;
}
template <class V>
HK_INLINE void store_first(ScalarOf<V>* to, V value, int64_t count) {
  memcpy(to, &value, count * sizeof(ScalarOf<V>));
}
template <class V>
HK_INLINE V keep_first(V value, int64_t count) {
  return load_first<V>(reinterpret_cast<const ScalarOf<V>*>(&value), count);
}

template <class V>
HK_INLINE V load_some(const ScalarOf<V>* from, int64_t count) {
#if HK_LANES >= 8
  if constexpr (std::is_same_v<V, Floats>) return load_first(from, count);
#endif
  return load_first<V>(from, count);
}

template <class V>
HK_INLINE void store_some(ScalarOf<V>* to, V value, int64_t count) {
  store_first(to, value, count);
}

template <bool Whole, class V>
HK_INLINE V get(const ScalarOf<V>* from, int64_t count) {
  return Whole ? load<V>(from) : load_some<V>(from, count);
}

template <bool Whole, class V>
HK_INLINE void put(ScalarOf<V>* to, V value, int64_t count) {
  Whole ? store<V>(to, value) : store_some<V>(to, value, count);
}

// Of as many elements as there are, which is seldom less than a vector.
template <class V>
HK_INLINE V get_some(const ScalarOf<V>* from, int64_t count) {
  return count == Lanes<V>::count ? load<V>(from) : load_some<V>(from, count);
}
template <class V>
HK_INLINE void put_some(ScalarOf<V>* to, V value, int64_t count) {
  count == Lanes<V>::count ? store<V>(to, value) : store_some<V>(to, value, count);
}

// As put, but past the cache where `stream`; the address must then be a multiple of the vector's size.
template <bool Whole, class V>
HK_INLINE void put_streaming(ScalarOf<V>* to, V value, bool stream, int64_t count) {
  if constexpr (Whole) {
    if (stream) return store_past_cache(to, value);
  }
  put<Whole, V>(to, value, count);
}

// Of so few elements the processor's own prefetching has the next ones at hand, and asking costs as much as a formula.
constexpr int64_t short_row = 256;

// Brings nearer what lies 2 KiB further in each array, to be read or, where `Write`, to be written. The processor's own
// prefetching ends with a page of 4 KiB, which here is a block of an array. What lies there need not belong to it.
template <bool Write, class... T>
HK_INLINE void look_ahead(int64_t i, const T*... arrays) {
  ((arrays ? __builtin_prefetch(reinterpret_cast<const char*>(arrays + i) + 2048, Write) : void()), ...);
}

template <bool Whole, class V>
HK_INLINE void put_or_add(ScalarOf<V>* to, V value, bool add, int64_t count) {
  put<Whole, V>(to, add ? get<Whole, V>(to, count) + value : value, count);
}

// Zero in the lanes that hold no element.
template <bool Whole, class V>
HK_INLINE V masked(V value, int64_t count) {
  return Whole ? value : keep_first(value, count);
}

// Calls body.step<Whole>(i, count) for every vector of elements begin .. n-1.
template <class V, class Body>
HK_INLINE void for_vectors(int64_t begin, int64_t n, Body& body) {
  constexpr int64_t lanes = Lanes<V>::count;
  int64_t i = begin;
  for (; i + lanes <= n; i += lanes) body.template step<true>(i, lanes);
  if (i < n) body.template step<false>(i, n - i);
}
template <class V, class Body>
HK_INLINE void for_vectors(int64_t n, Body& body) {
  for_vectors<V>(0, n, body);
}

// The sum of run<V>(begin, n) over pairs of vectors, and of what is left over single ones.
template <class T, class Run>
HK_INLINE T for_pairs(int64_t n, const Run& run) {
  using V = typename VectorOf<T>::type;
#if HK_LANES > 1
  if constexpr (Lanes<V>::count > 1) {
    const int64_t paired = n / Lanes<FloatPair>::count * Lanes<FloatPair>::count;
    const T first = paired > 0 ? run.template operator()<FloatPair>(0, paired) : T(0);
    return paired < n ? first + run.template operator()<V>(paired, n) : first;
  }
#endif
  return run.template operator()<V>(0, n);
}

}  // namespace hk::HK_ISA
