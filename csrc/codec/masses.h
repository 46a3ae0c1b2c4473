// Masses of a symbol of the codec, all in integers: hybridkern/codec/reference.py says the same in Python.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "../math/inline.h"
#include "coder.h"

namespace hk::codec {

constexpr int mass_bits = 24, one_bits = 30, weight_bits = 16, share_bits = 46, fraction_bits = 10, argument_shift = 20;
constexpr int64_t mass = int64_t{1} << mass_bits, one = int64_t{1} << one_bits, window = 4096;
constexpr int64_t mean_steps = 64, entries = 24 * 64, farthest = int64_t{1} << 24;

// 2^30 sigma(distance / scale), the distance in steps of a mean, `inverse` being 2^30 / scale. Signs are as good as
// random, so there is no branch. The last two entries of `tail` are 0.
HK_INLINE int64_t below(int64_t distance, uint64_t inverse, const int32_t* tail) {
  const int64_t negative = distance >> 63;
  const uint64_t size = std::min<int64_t>((distance ^ negative) - negative, farthest);
  const uint64_t argument = size * inverse >> argument_shift;
  const uint64_t i = std::min<uint64_t>(argument >> fraction_bits, entries);
  const int64_t fraction = argument & ((1 << fraction_bits) - 1);
  const int64_t here = tail[i], rest = here - ((here - tail[i + 1]) * fraction >> fraction_bits);
  return (rest ^ ~negative) + (~negative & (one + 1));
}

// The distribution of one symbol.
class Symbol {
 public:
  // Reads component k of the parameters at [k * stride].
  Symbol(const Row& row, const Tables& tables, int64_t d) : tail_(tables.tail), count_(row.components) {
    int64_t middle = 0;
    if (count_ == 1) {
      means_[0] = row.means[d], inverse_[0] = tables.inverse[row.scales[d] & 255];
      weights_[0] = int64_t{1} << weight_bits;
      middle = means_[0];
    } else {
      set_weights(row, tables, d);
      for (int64_t k = 0; k < count_; ++k) {
        means_[k] = row.means[k * row.stride + d], inverse_[k] = tables.inverse[row.scales[k * row.stride + d] & 255];
        middle += weights_[k] * means_[k];
      }
      middle >>= weight_bits;
    }
    first_ = ((middle + mean_steps / 2) >> 6) - window / 2;
  }

  int64_t first() const { return first_; }

  // C(b)
  int64_t start(int64_t b) const {
    const int64_t edge = mean_steps * (first_ + b) - mean_steps / 2;
    int64_t sum = 0;
    if (count_ == 1) {
      sum = below(edge - means_[0], inverse_[0], tail_);
    } else {
      for (int64_t k = 0; k < count_; ++k) sum += weights_[k] * below(edge - means_[k], inverse_[k], tail_);
      sum >>= weight_bits;
    }
    return (sum * (mass - window - 1) >> one_bits) + b;
  }

  // The bin b with C(b) <= place < C(b + 1), which are left in `low` and `high`; the window's size for the escape, -1
  // for none. The search may begin anywhere: what it finds is decided by the integers above alone.
  int64_t find(int64_t place, int64_t& low, int64_t& high) const {
    int64_t least, most;
    bracket(place, least, most);
    low = start(least);
    for (int64_t step = 1; low > place; step *= 2) {
      most = least, high = low;
      if (least == 0) return -1;
      least = std::max<int64_t>(0, least - step);
      low = start(least);
      if (low <= place) return narrow(place, least, most, low, high);
    }
    if (most <= least) most = std::min(window, least + 1);
    high = start(most);
    for (int64_t step = 1; high <= place; step *= 2) {
      least = most, low = high;
      if (most == window) return window;
      most = std::min(window, most + step);
      high = start(most);
    }
    return narrow(place, least, most, low, high);
  }

 private:
  void set_weights(const Row& row, const Tables& tables, int64_t d) {
    int64_t largest = 0, sum = 0, rest = int64_t{1} << weight_bits;
    for (int64_t k = 1; k < count_; ++k)
      if (row.logits[k * row.stride + d] > row.logits[largest * row.stride + d]) largest = k;
    const int64_t most = row.logits[largest * row.stride + d];
    for (int64_t k = 0; k < count_; ++k) {
      weights_[k] = tables.weight[std::min<int64_t>(most - row.logits[k * row.stride + d], 255)];
      sum += weights_[k];
    }
    const int64_t share = (int64_t{1} << share_bits) / sum;
    for (int64_t k = 0; k < count_; ++k) {
      weights_[k] = weights_[k] * share >> (share_bits - weight_bits);
      rest -= weights_[k];
    }
    for (int64_t k = 0; k < count_; ++k)
      if (row.logits[k * row.stride + d] == most) {
        weights_[k] += rest;
        break;
      }
  }

  // A guess: the quantile of the mixture lies between the least and the largest of those of its components.
  void bracket(int64_t place, int64_t& least, int64_t& most) const {
    const double share = (static_cast<double>(place) + 0.5) / mass;
    const double logit = std::log(share / (1 - share));
    double low = 1e18, high = -1e18;
    for (int64_t k = 0; k < count_; ++k) {
      const double quantile = means_[k] * (1.0 / mean_steps) + logit * (static_cast<double>(one) / inverse_[k]);
      low = std::min(low, quantile), high = std::max(high, quantile);
    }
    const double offset = 0.5 - static_cast<double>(first_);
    least = static_cast<int64_t>(std::clamp(low + offset, 0.0, static_cast<double>(window - 1)));
    most = static_cast<int64_t>(std::clamp(high + offset, 0.0, static_cast<double>(window - 1))) + 1;
  }

  // C(least) <= place < C(most): by halves and by straight lines in turn.
  int64_t narrow(int64_t place, int64_t least, int64_t most, int64_t& low, int64_t& high) const {
    for (bool halve = false; most - least > 1; halve = !halve) {
      int64_t b = (least + most) / 2;
      if (!halve) b = std::clamp(least + (most - least) * (place - low) / (high - low), least + 1, most - 1);
      const int64_t value = start(b);
      if (value <= place)
        least = b, low = value;
      else
        most = b, high = value;
    }
    return least;
  }

  const int32_t* tail_;
  int64_t count_, first_ = 0;
  int64_t weights_[most_components], means_[most_components], inverse_[most_components];
};

}  // namespace hk::codec
