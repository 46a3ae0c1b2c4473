// Streams side by side, for one instruction set: to be included once in each of its files.
#include "streams_guess.h"

namespace hk::codec::HK_ISA {

constexpr int most_rounds = 3;

// Decodes symbols of `V * group` streams.
template <bool Single, int V>
struct Decoder {
  static constexpr int streams = V * group, halves = 2 * V;
  static constexpr uint32_t everyone = (uint64_t{1} << streams) - 1;

  Cursor* cursors;
  char* sound;
  int64_t count;
  const Row* rows;
  const WideTables& tables;
  alignas(64) uint64_t state[streams] = {};
  alignas(64) uint64_t after[streams] = {};  // what they are once the symbol is decoded
  alignas(64) int32_t found[half][streams] = {};
  uint32_t alive = 0, exhausted = 0;
  Guess<V> guess = {};

  HK_INLINE void step(const double* block, int64_t components, int64_t at, int64_t d) {
    Doubles place[halves], b[halves];
    Vectors<V> places_of_all;
    for (int i = 0; i < halves; ++i) place[i] = small(read<Bits>(state + i * half) & 0xffffff);
    for (int v = 0; v < V; ++v) places_of_all[v] = joined(to_floats(place[2 * v]), to_floats(place[2 * v + 1]));
    const Vectors<V> guessed = guess.template at<Single>(block, components, places_of_all);
    for (int i = 0; i < halves; ++i) b[i] = most(least(floor(to_doubles(part(guessed[i / 2], i % 2))), window - 1), 0);
    uint32_t within = 0, empty = 0;
    for (int i = 0; i < halves; ++i) {
      const Mixture mixture{block + i * half, streams, components};
      const uint32_t mine = alive >> i * half & ((1u << half) - 1);
      Doubles low, high;
      uint32_t right = 0;
      for (int round = 1;; ++round) {
        bounds<Single>(mixture, b[i], tables.steps, low, high);
        right = mask(as<Bits>((low <= place[i]) & (place[i] < high)));
        if ((right & mine) == mine || round == most_rounds) break;
        b[i] = most(least(b[i] + floor((place[i] - low) / (high - low)), window - 1), 0);
      }
      const Bits next = product(read<Bits>(state + i * half) >> 24, integer(high - low)) + integer(place[i] - low);
      write(after + i * half, next);
      write(found[at] + i * half, integers(b[i] + mixture.first()));
      within |= right << i * half;
      empty |= mask(as<Bits>(next < (uint64_t{1} << 31))) << i * half;
    }
    if (alive == everyone && within == everyone)
      memcpy(state, after, sizeof state);
    else
      sort_out(within, at, d);
    for (uint32_t left = empty & within & alive & ~exhausted; left; left &= left - 1) fill(__builtin_ctz(left));
  }

  // Of the symbols a cache line farther on: these are more places than the processor foresees.
  static HK_INLINE void fetch(const Row& row, int64_t d) {
    for (int64_t k = 0; k < row.components; ++k)
      for (const int32_t* of : {row.means, row.scales, row.logits})
        _mm_prefetch(reinterpret_cast<const char*>(of + k * row.stride + d + 16), _MM_HINT_T0);
  }

  // An integer from 0 to 2^24.
  static HK_INLINE Bits integer(Doubles x) { return as<Bits>(x + 4503599627370496.0) & 0x1ffffff; }  // 2^52

  // Of factors below 2^39 and 2^25.
  static HK_INLINE Bits product(Bits a, Bits b) {
#if HK_LANES == 16
    return as<Bits>(_mm512_mullo_epi64(as<__m512i>(a), as<__m512i>(b)));
#else
    const __m256i low = _mm256_mul_epu32(as<__m256i>(a), as<__m256i>(b));
    const __m256i high = _mm256_mul_epu32(as<__m256i>(a >> 32), as<__m256i>(b));
    return as<Bits>(low) + (as<Bits>(high) << 32);
#endif
  }

  // Where not every stream got its symbol: by the coder of one stream those that have one, an escape or far off.
  void sort_out(uint32_t within, int64_t at, int64_t d) {
    for (int i = 0; i < streams; ++i) {
      if (alive & within & 1u << i) {
        state[i] = after[i];
        continue;
      }
      found[at][i] = 0;
      if (!(alive & 1u << i)) continue;
      cursors[i].state = state[i];
      if (!decode_one(cursors[i], found[at][i], rows[i], d, tables.plain)) sound[i] = 0, alive &= ~(1u << i);
      state[i] = cursors[i].state;
    }
  }

  void fill(int i) {
    cursors[i].state = state[i];
    refill(cursors[i]);
    state[i] = cursors[i].state;
    if (cursors[i].next == cursors[i].end) exhausted |= 1u << i;
  }

  void run(int32_t* values, int64_t size) {
    const int64_t components = rows[0].components;
    // a cache line more than the numbers of a symbol, which may be a power of two: else all would lie in the same sets
    const int64_t next = (1 + (Single ? 2 : 3 * components)) * streams + 8;
    alignas(64) double own[(1 + 3 * most_components) * half];
    alignas(64) double block[half * ((1 + 3 * most_components) * streams + 8)];
    for (int64_t i = 0; i < count; ++i) {
      state[i] = cursors[i].state;
      alive |= static_cast<uint32_t>(sound[i] != 0) << i;
    }
    const bool shared = count > 1 && rows[0].means == rows[1].means;
    int64_t d = 0;
    for (; d + half <= size && alive; d += half) {
      for (int64_t i = 0; i < streams; ++i) {
        if (i == 0 || (!shared && i < count)) {
          fetch(rows[i], d);
          prepare<Single, false>(rows[i], d, tables, own);
        }
        const int32_t* scales = rows[i < count ? i : 0].scales + d;
        for (int64_t j = 0; j < half; ++j) block[j * next + i] = own[j];
        for (int64_t k = 0; k < components; ++k) {
          double* to = block + (1 + 3 * k) * streams + i;
          const double* from = own + (1 + 3 * k) * half;
          for (int64_t j = 0; j < half; ++j, to += next) {
            to[0] = from[j];
            to[streams] = tables.inverse[scales[k * rows[0].stride + j] & 255];
            if (!Single) to[2 * streams] = from[2 * half + j];
          }
        }
      }
      for (int64_t j = 0; j < half; ++j) step(block + j * next, components, j, d + j);
      for (int64_t i = 0; i < count; ++i)
        for (int64_t j = 0; j < half; ++j) values[i * size + d + j] = found[j][i];
    }
    for (int64_t i = 0; i < count; ++i) cursors[i].state = state[i];
    for (; d < size; ++d)
      for (int64_t i = 0; i < count; ++i)
        if (sound[i]) sound[i] = decode_one(cursors[i], values[i * size + d], rows[i], d, tables.plain);
  }
};

template <bool Single>
inline void decode_all(Cursor* cursors, char* sound, int32_t* values, int64_t count, int64_t size, const Row* rows,
                       const WideTables& tables) {
  if (count > group)
    Decoder<Single, 2>{cursors, sound, count, rows, tables}.run(values, size);
  else
    Decoder<Single, 1>{cursors, sound, count, rows, tables}.run(values, size);
}

inline void decode(Cursor* cursors, char* sound, int32_t* values, int64_t count, int64_t size, const Row* rows,
                   const WideTables& tables) {
  const auto run = rows[0].components == 1 ? &decode_all<true> : &decode_all<false>;
  run(cursors, sound, values, count, size, rows, tables);
}

template <bool Single>
inline int64_t place_all(const int32_t* values, int64_t size, const Row& row, const WideTables& tables, int32_t* starts,
                         int32_t* sizes) {
  alignas(64) double own[(1 + 3 * most_components) * half];
  int64_t d = 0;
  for (; d + half <= size; d += half) {
    prepare<Single, true>(row, d, tables, own);
    const Mixture mixture{own, half, row.components};
    const Doubles b = doubles(read<HalfInts>(values + d)) - mixture.first();
    Doubles low, high;
    bounds<Single>(mixture, most(least(b, window - 1), 0), tables.steps, low, high);
    const Doubles mass = (b >= 0) & (b < window) ? high - low : Doubles{};
    write(starts + d, integers(low));
    write(sizes + d, integers(mass));
  }
  return d;
}

inline int64_t places_of(const int32_t* values, int64_t size, const Row& row, const WideTables& tables, int32_t* starts,
                         int32_t* sizes) {
  return row.components == 1 ? place_all<true>(values, size, row, tables, starts, sizes)
                             : place_all<false>(values, size, row, tables, starts, sizes);
}

}  // namespace hk::codec::HK_ISA
