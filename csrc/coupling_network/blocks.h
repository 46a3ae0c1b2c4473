// Blocks of 32 x 32 numbers for one instruction set, and the products that work without matrix instructions.
//
// A left operand is row-major, [row][k]. How a right operand lies is the engine's choice: `pack` makes it from
// [k][column], `pack_transposed` from [column][k].
#pragma once

#include <cstring>

#include "../math/lanes.h"
#include "../math/low_precision.h"
#include "network.h"

namespace hk::HK_ISA {

using network::area;
using network::side;

template <class T>
struct NetworkVector {
  using type = T;
};
#if HK_LANES > 1
template <>
struct NetworkVector<float> {
  using type = Floats;
};
#endif

template <class T>
using Vec = typename NetworkVector<T>::type;
template <class T>
constexpr int64_t vectors = side / Lanes<Vec<T>>::count;  // in a row of a block

HK_INLINE float rounded(float value, float) { return value; }
HK_INLINE double rounded(double value, double) { return value; }
HK_INLINE Bf16 rounded(float value, Bf16) { return narrow<Bf16>(value); }
HK_INLINE float number(float value) { return value; }
HK_INLINE double number(double value) { return value; }
HK_INLINE float number(Bf16 value) { return widen<float>(value); }

// As splat, which adds to zero: that is an addition and a permutation each time. Subtracting zero changes nothing, so
// the compiler loads and broadcasts in one instruction.
template <class V>
HK_INLINE V broadcast(ScalarOf<V> value) {
  return value - V{};
}

template <class V>
HK_INLINE V load_numbers(const ScalarOf<V>* from) {
  return load<V>(from);
}
template <class V>
HK_INLINE void store_numbers(ScalarOf<V>* to, V value) {
  store<V>(to, value);
}
#if HK_LANES > 1
typedef uint16_t Halves __attribute__((vector_size(2 * HK_LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * HK_LANES)));
template <class V>
HK_INLINE V load_numbers(const Bf16* from) {
  Halves bits;
  memcpy(&bits, from, sizeof(bits));
  return bits_as<V>(__builtin_convertvector(bits, Words) << 16);
}
template <class V>
HK_INLINE void store_numbers(Bf16* to, V value) {
  const Words bits = bits_as<Words>(value);
  const Words nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Words kept = (bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x7fc0u : nearest;
  const Halves halves = __builtin_convertvector(kept, Halves);
  memcpy(to, &halves, sizeof(halves));
}
#endif

// Sums of products in the working type T of numbers kept as E, widened one by one.
template <class E_, class T_, int Rows, int Vectors>
struct Widening {
  using E = E_;
  using T = T_;
  using V = Vec<T>;

  struct Session {};  // what a thread sets up

  // The left operand of a product over pixels, for a whole row of the result: here it is read where it lies.
  struct Columns {
    const E* a;
    int64_t pace;
    Columns(const E* a_, int64_t pace_, int64_t, E*) : a(a_), pace(pace_) {}
    void product(const E* b, int64_t depth, T* c, bool accumulate) const {
      sum_products<true>(a, pace, b, depth, c, accumulate);
    }
  };

  static void pack(const E* from, E* to) { memcpy(to, from, area * sizeof(E)); }
  static void pack_transposed(const E* from, E* to) {
    for (int64_t r0 = 0; r0 < side; r0 += 8)
      for (int64_t c = 0; c < side; ++c)
        for (int64_t r = r0; r < r0 + 8; ++r) to[c * side + r] = from[r * side + c];
  }

  // c (32 x 32) = [c +] sum over k of a(k) b(k), its first `rows` rows at least
  static void product(const E* a, const E* b, int64_t depth, T* c, bool accumulate, int64_t rows = side) {
    sum_products<false>(a, area, b, depth, c, accumulate, rows);
  }

  // So many blocks of either operand fit the first-level cache, where every row of the result reads the right one
  // again.
  static constexpr int64_t chunk = 4;

  template <bool Transposed>
  static void sum_products(const E* a, int64_t pace, const E* b, int64_t depth, T* c, bool accumulate,
                           int64_t rows = side) {
    for (int64_t k = 0; k < depth; k += chunk)
      add_chunk<Transposed>(a + k * pace, pace, b + k * area, depth - k < chunk ? depth - k : chunk, c,
                            accumulate || k > 0, rows);
  }

  template <bool Transposed>
  static HK_INLINE void add_chunk(const E* a, int64_t pace, const E* b, int64_t depth, T* c, bool accumulate,
                                  int64_t rows) {
    constexpr int64_t lanes = Lanes<V>::count, columns = Vectors * lanes;
    for (int64_t r0 = 0; r0 < rows; r0 += Rows)
      for (int64_t c0 = 0; c0 < side; c0 += columns) {
        V sum[Rows][Vectors];
        for (int r = 0; r < Rows; ++r)
          for (int v = 0; v < Vectors; ++v)
            sum[r][v] = accumulate ? load<V>(c + (r0 + r) * side + c0 + v * lanes) : V{};
        for (int64_t block = 0; block < depth; ++block) {
          const E *left = a + block * pace + (Transposed ? r0 : r0 * side), *right = b + block * area + c0;
          for (int64_t k = 0; k < side; ++k) {
            V factor[Vectors];
            for (int v = 0; v < Vectors; ++v) factor[v] = load_numbers<V>(right + k * side + v * lanes);
#pragma GCC unroll 16
            for (int r = 0; r < Rows; ++r) {
              const V weight = broadcast<V>(number(left[Transposed ? k * side + r : r * side + k]));
              for (int v = 0; v < Vectors; ++v) sum[r][v] += weight * factor[v];
            }
          }
        }
        for (int r = 0; r < Rows; ++r)
          for (int v = 0; v < Vectors; ++v) store<V>(c + (r0 + r) * side + c0 + v * lanes, sum[r][v]);
      }
  }

  static HK_INLINE void store_row(E* to, const V* values) {
    for (int64_t v = 0; v < vectors<T>; ++v) store_numbers<V>(to + v * Lanes<V>::count, values[v]);
  }
  static HK_INLINE void load_row(V* values, const E* from) {
    for (int64_t v = 0; v < vectors<T>; ++v) values[v] = load_numbers<V>(from + v * Lanes<V>::count);
  }
};

}  // namespace hk::HK_ISA
