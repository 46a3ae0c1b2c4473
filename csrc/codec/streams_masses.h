// Masses of as many symbols as a vector of doubles has lanes: masses.h says the same for one symbol.
#pragma once

#include "streams_vectors.h"

namespace hk::codec::HK_ISA {

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

}  // namespace hk::codec::HK_ISA
