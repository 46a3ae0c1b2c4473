// Streams side by side, for one instruction set: to be included once in each of its files. HK_LANES floats are as many
// streams as two vectors of doubles.
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

HK_INLINE Floats joined(HalfFloats first, HalfFloats second) {
  Floats out;
  memcpy(&out, &first, sizeof first);
  memcpy(reinterpret_cast<char*>(&out) + sizeof first, &second, sizeof second);
  return out;
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

// 2^30 sigma(distance / scale) - 2^29, the distance in steps of a mean, `inverse` being 1 / scale.
HK_INLINE Doubles centered(Doubles distance, Doubles inverse, const uint64_t* steps) {
  const Bits sign = Bits{} + (uint64_t{1} << 63);
  const Doubles size = least(as<Doubles>(as<Bits>(distance) & ~sign), 1 << 24);
  const Doubles at = least(size * inverse, 24 * 64);  // exact wherever it is below the bound
  const Doubles entry = floor(at);
  const Bits step = gather(steps, integers(entry));
  const Doubles value = small(step >> 32) + floor(small(step & 0xffffffff) * (floor_1024(at) - entry));
  return as<Doubles>(as<Bits>(value) | (as<Bits>(distance) & sign));
}

// Of 2^30 F(b): where bin b starts.
HK_INLINE Doubles start_of(Doubles below, Doubles b) {
  const Doubles sixtyfourths = below * (1.0 / 64), whole = floor(sixtyfourths);
  return whole + floor((sixtyfourths - whole) - below * (4097 / one)) + b;  // below * (2^24 - 4097) / 2^30
}

// Parameters of as many symbols as a vector has lanes: the first value of the window, then of each component its mean,
// 1 / scale and weight, `stride` apart.
struct Mixture {
  const double* of;
  int64_t stride, components;
  Doubles first() const { return read<Doubles>(of); }
  Doubles mean(int64_t k) const { return read<Doubles>(of + (1 + 3 * k) * stride); }
  Doubles inverse(int64_t k) const { return read<Doubles>(of + (2 + 3 * k) * stride); }
  Doubles weight(int64_t k) const { return read<Doubles>(of + (3 + 3 * k) * stride); }
};

// C(b) and C(b + 1).
template <bool Single>
HK_INLINE void bounds(const Mixture& mixture, Doubles b, const uint64_t* steps, Doubles& low, Doubles& high) {
  const Doubles edge = 64 * (mixture.first() + b) - 32, next = edge + 64;
  if (Single) {
    const Doubles mean = mixture.mean(0), inverse = mixture.inverse(0);
    low = start_of(centered(edge - mean, inverse, steps) + one / 2, b);
    high = start_of(centered(next - mean, inverse, steps) + one / 2, b + 1);
    return;
  }
  Doubles sum = Doubles{}, after = Doubles{};
  for (int64_t k = 0; k < mixture.components; ++k) {
    const Doubles mean = mixture.mean(k), inverse = mixture.inverse(k), weight = mixture.weight(k);
    sum += weight * centered(edge - mean, inverse, steps);
    after += weight * centered(next - mean, inverse, steps);
  }
  low = start_of(floor(sum * (1.0 / 65536)) + one / 2, b);
  high = start_of(floor(after * (1.0 / 65536)) + one / 2, b + 1);
}

// Prepares symbols d, d + 1, ... of one stream, `to` having a row of `half` numbers for each that a Mixture reads;
// those of 1 / scale are left out where `Scales` is not set.
template <bool Single, bool Scales>
HK_INLINE void prepare(const Row& row, int64_t d, const WideTables& tables, double* to) {
  const auto symbols = [&](const int32_t* from, int64_t k) { return read<HalfInts>(from + k * row.stride + d); };
  Doubles middle;
  if (Single) {
    middle = doubles(symbols(row.means, 0));
    write(to + half, middle);
    if (Scales) write(to + 2 * half, gather(tables.inverse, symbols(row.scales, 0) & 255));
  } else {
    Doubles largest = doubles(symbols(row.logits, 0)), total = Doubles{};
    for (int64_t k = 1; k < row.components; ++k) {
      const Doubles logit = doubles(symbols(row.logits, k));
      largest = logit > largest ? logit : largest;
    }
    for (int64_t k = 0; k < row.components; ++k) {
      const Doubles below = least(largest - doubles(symbols(row.logits, k)), 255);
      const Doubles mass = gather(tables.weight, integers(below));
      write(to + (3 + 3 * k) * half, mass);
      total += mass;
    }
    // The quotient is at least 2^-25 away from an integer that it does not reach, and doubles near it are 2^-26 apart.
    const Doubles share = floor((Doubles{} + 70368744177664.0) / total);
    Doubles rest = Doubles{} + 65536;
    for (int64_t k = 0; k < row.components; ++k) {
      const Doubles weight = floor(read<Doubles>(to + (3 + 3 * k) * half) * share * (1.0 / (1 << 30)));
      write(to + (3 + 3 * k) * half, weight);
      rest -= weight;
    }
    middle = Doubles{};
    for (int64_t k = 0; k < row.components; ++k) {
      const auto first = doubles(symbols(row.logits, k)) == largest;
      const Doubles weight = read<Doubles>(to + (3 + 3 * k) * half) + (first ? rest : Doubles{});
      rest = first ? Doubles{} : rest;
      const Doubles mean = doubles(symbols(row.means, k));
      write(to + (1 + 3 * k) * half, mean);
      if (Scales) write(to + (2 + 3 * k) * half, gather(tables.inverse, symbols(row.scales, k) & 255));
      write(to + (3 + 3 * k) * half, weight);
      middle += weight * mean;
    }
    middle = floor(middle * (1.0 / 65536));
  }
  write(to, floor((middle + 32) * (1.0 / 64)) - window / 2);
}

// Several vectors, whose chains of operations do not wait for each other.
template <int V>
struct Vectors {
  Floats of[V];
  HK_INLINE Floats& operator[](int v) { return of[v]; }
  HK_INLINE const Floats& operator[](int v) const { return of[v]; }
};

// A guess at the bin of a place, in float32, of `V * group` symbols; what is found is decided by `bounds` alone.
template <int V>
struct Guess {
  static constexpr int most_steps = 2;

  Vectors<V> mean[most_components], inverse[most_components], weight[most_components];

  template <bool Single>
  HK_INLINE Vectors<V> at(const double* block, int64_t components, const Vectors<V>& place) {
    for (int v = 0; v < V; ++v) take<Single>(block + v * group, components, v);
    Vectors<V> below, above, logit, y;
    for (int v = 0; v < V; ++v) {
      below[v] = math::at_least(place[v] - 2047.5f, 0.5f);
      above[v] = math::at_least(static_cast<float>(places) - below[v], 0.5f);
      logit[v] = math::float_log(below[v] / above[v]);
      if (Single) y[v] = mean[0][v] + logit[v] / inverse[0][v];
      below[v] *= static_cast<float>(1 / places);
    }
    return Single ? y : solve(components, below, logit);
  }

 private:
  template <bool Single>
  HK_INLINE void take(const double* block, int64_t components, int v) {
    const Mixture sides[2] = {{block, V * group, components}, {block + half, V * group, components}};
    for (int64_t k = 0; k < components; ++k) {
      HalfFloats parts[3][2];
      for (int i = 0; i < 2; ++i) {
        parts[0][i] = to_floats(sides[i].mean(k) * (1.0 / 64) - sides[i].first() + 0.5);
        parts[1][i] = to_floats(sides[i].inverse(k));
        if (!Single) parts[2][i] = to_floats(sides[i].weight(k) * (1.0 / 65536));
      }
      mean[k][v] = joined(parts[0][0], parts[0][1]), inverse[k][v] = joined(parts[1][0], parts[1][1]);
      if (!Single) weight[k][v] = joined(parts[2][0], parts[2][1]);
    }
  }

  // Where the mixture's cumulative function is `below`: Newton's steps on its logit, within bounds. They begin where
  // the component that holds it would have it, were the others all below or all above.
  HK_INLINE Vectors<V> solve(int64_t components, const Vectors<V>& below, const Vectors<V>& logit) const {
    const Floats none = math::splat<Floats>(0.0f);
    Vectors<V> low, high, share, center, slope, y;
    for (int v = 0; v < V; ++v)
      low[v] = math::splat<Floats>(window), high[v] = share[v] = center[v] = none, slope[v] = none + 1.0f;
    for (int64_t k = 0; k < components; ++k)
      for (int v = 0; v < V; ++v) {
        const Floats own = mean[k][v] + logit[v] / inverse[k][v];
        low[v] = own < low[v] ? own : low[v], high[v] = own > high[v] ? own : high[v];
        Floats before = none;
        for (int64_t j = 0; j < k; ++j) before += mean[j][v] <= mean[k][v] ? weight[j][v] : none;
        for (int64_t j = k + 1; j < components; ++j) before += mean[j][v] < mean[k][v] ? weight[j][v] : none;
        const auto holds = (before <= below[v]) & (below[v] < before + weight[k][v]);
        share[v] = holds ? (below[v] - before) / weight[k][v] : share[v];
        center[v] = holds ? mean[k][v] : center[v], slope[v] = holds ? inverse[k][v] : slope[v];
      }
    for (int v = 0; v < V; ++v) {
      const Floats inside = math::at_most(math::at_least(share[v], 1e-3f), 1 - 1e-3f);
      const Floats start = center[v] + math::float_log(inside / (1.0f - inside)) / slope[v];
      low[v] -= 0.5f, high[v] += 0.5f;
      y[v] = start < low[v] ? low[v] : start > high[v] ? high[v] : start;
    }
    for (int i = 0; i < most_steps; ++i) {
      Vectors<V> under, over, density;
      for (int v = 0; v < V; ++v) under[v] = over[v] = density[v] = none;
      for (int64_t k = 0; k < components; ++k)
        for (int v = 0; v < V; ++v) {
          const Floats z = (y[v] - mean[k][v]) * inverse[k][v];
          const Floats e = math::float_exp_of_negative(math::minus_absolute(z)), part = 1.0f / (1.0f + e);
          const Floats large = weight[k][v] * part, small = e * large;
          const auto right = z > 0.0f;
          under[v] += right ? large : small, over[v] += right ? small : large;
          density[v] += inverse[k][v] * part * small;
        }
      for (int v = 0; v < V; ++v) {
        low[v] = under[v] < below[v] ? y[v] : low[v], high[v] = under[v] < below[v] ? high[v] : y[v];
        const Floats step = (math::float_log(under[v] / over[v]) - logit[v]) * under[v] * over[v] / density[v];
        const Floats next = y[v] - step;
        const auto inside = (next > low[v] - 0.01f) & (next < high[v] + 0.01f);
        y[v] = inside ? next : 0.5f * (low[v] + high[v]);
      }
    }
    return y;
  }
};

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
        if (i == 0 || (!shared && i < count)) prepare<Single, false>(rows[i], d, tables, own);
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
