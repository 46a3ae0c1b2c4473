// How layers.h makes its matrices.
#pragma once

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <type_traits>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#include "layers.h"

namespace hk::masked {

template <class T>
Layers<T>::Layers(const MaskedLists& lists, bool backward) {
  const auto dense = [&](const Tensor& tensor) {
    kept_.push_back(tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor));
    return static_cast<const T*>(kept_.back().const_data_ptr());
  };
  const size_t count = lists.weights.size();
  kept_.reserve(3 * count);
  int64_t in = lists.weights[0].size(1), numbers = 0, ranges = 0, places = in;
  for (size_t i = 0; i < count; ++i) {
    Layer<T> layer{};
    layer.in = in, layer.out = lists.weights[i].size(0);
    layer.in_row = masked_row(in), layer.out_row = masked_row(layer.out);
    layer.skip = masked_skip(lists.plan[i]), layer.activated = is_activated(lists.plan[i]);
    layer.weight = dense(lists.weights[i]), layer.bias = dense(lists.biases[i]), layer.mask = dense(lists.masks[i]);
    if (layer.skip >= 0) layers_[layer.skip].added = true;
    numbers += backward ? layer.out * layer.in_row : (layer.in + 1) * layer.out_row;
    ranges += layer.in_blocks() + layer.out_blocks();
    places += layer.out;
    in = layer.out;
    layers_.push_back(layer);
  }
  orders_.resize(places);
  ranges_.resize(ranges);
  set_orders();
  T* matrix = static_cast<T*>(reused<Reused::matrices>(numbers * sizeof(T)));
  MaskedRange* range = ranges_.data();
  for (Layer<T>& layer : layers_) {
    layer.matrix = matrix, layer.seen = range, layer.feeds = range + layer.out_blocks();
    range = layer.feeds + layer.in_blocks();
    matrix += backward ? layer.out * layer.in_row : layer.in * layer.out_row;
    if (!backward) layer.start = matrix, matrix += layer.out_row;
    set_matrix(layer, backward);
  }
}

template <class T>
int64_t Layers<T>::row_total() const {
  int64_t total = 0;
  for (const Layer<T>& layer : layers_) total += layer.out_row;
  return total;
}

// Units by how many inputs they see; layers that are added to each other in one order, and the last one's as they are.
template <class T>
void Layers<T>::set_orders() {
  int32_t* place = orders_.data();
  std::iota(place, place + layers_[0].in, 0);
  const int32_t* before = place;
  place += layers_[0].in;
  std::vector<char> as_they_are(layers_.size());
  as_they_are.back() = true;
  for (int64_t i = count() - 1; i >= 0; --i)
    if (as_they_are[i] && layers_[i].skip >= 0) as_they_are[layers_[i].skip] = true;
  std::vector<int32_t> counts;
  for (int64_t i = 0; i < count(); ++i) {
    Layer<T>& layer = layers_[i];
    layer.inputs = before, layer.order = before = place;
    const bool fixed = as_they_are[i] || (layer.skip >= 0 && as_they_are[layer.skip]);
    if (fixed) {
      std::iota(place, place + layer.out, 0);
      as_they_are[i] = true;
    } else if (layer.skip >= 0) {
      std::copy_n(layers_[layer.skip].order, layer.out, place);
    } else {
      counts.assign(layer.in + 2, 0);
      std::vector<int32_t> own(layer.out);
      for (int64_t o = 0; o < layer.out; ++o) {
        const T* mask = layer.mask + o * layer.in;
        int32_t seen = 0;
        for (int64_t k = 0; k < layer.in; ++k) seen += mask[k] != 0;
        own[o] = seen;
        ++counts[seen + 1];
      }
      std::partial_sum(counts.begin(), counts.end(), counts.begin());
      for (int64_t o = 0; o < layer.out; ++o) place[counts[own[o]]++] = static_cast<int32_t>(o);
    }
    place += layer.out;
  }
}

// A range from the places that are set.
inline MaskedRange range_of(const uint8_t* set, int64_t count) {
  int64_t first = 0, last = count;
  while (first < last && !set[first]) ++first;
  while (last > first && !set[last - 1]) --last;
  return {first, last};
}

inline int32_t bits_of(float value) { return std::bit_cast<int32_t>(value); }
inline int64_t bits_of(double value) { return std::bit_cast<int64_t>(value); }

// Columns [0, count) of sixteen rows as rows of sixteen, each to its place.
template <class T>
void turn_columns(const T* rows, int64_t count, const int32_t* places, T* to, int64_t to_row) {
  int64_t k = 0;
#if defined(__SSE2__)
  if constexpr (std::is_same_v<T, float>)
    for (; k + 4 <= count; k += 4)
      for (int64_t r = 0; r < masked_lanes; r += 4) {
        __m128 part[4];
        for (int i = 0; i < 4; ++i) part[i] = _mm_loadu_ps(rows + (r + i) * count + k);
        _MM_TRANSPOSE4_PS(part[0], part[1], part[2], part[3]);
        for (int i = 0; i < 4; ++i) _mm_storeu_ps(to + places[k + i] * to_row + r, part[i]);
      }
#endif
  for (; k < count; ++k)
    for (int64_t r = 0; r < masked_lanes; ++r) to[places[k] * to_row + r] = rows[r * count + k];
}

// The matrix block by block of units, with what each block sees.
template <class T>
void Layers<T>::set_matrix(Layer<T>& layer, bool backward) {
  const int64_t in = layer.in, out = layer.out, in_blocks = layer.in_blocks(), out_blocks = layer.out_blocks();
  rows_.assign(masked_lanes * in, T{});
  places_.resize(in);
  for (int64_t k = 0; k < in; ++k) places_[layer.inputs[k]] = static_cast<int32_t>(k);
  touched_.assign(in_blocks * out_blocks, 0);
  sees_.resize(in);
  in_order_.resize(in);
  for (int64_t block = 0; block < out_blocks; ++block) {
    const int64_t begin = block * masked_lanes, units = std::min(masked_lanes, out - begin);
    std::fill(sees_.begin(), sees_.end(), 0);
    std::fill(rows_.begin() + units * in, rows_.end(), T{});
    for (int64_t r = 0; r < units; ++r) {
      const int64_t unit = layer.order[begin + r];
      const T *weight = layer.weight + unit * in, *mask = layer.mask + unit * in;
      T* row = rows_.data() + r * in;
      for (int64_t k = 0; k < in; ++k) row[k] = weight[k] * mask[k];
      for (int64_t k = 0; k < in; ++k) sees_[k] |= bits_of(mask[k]);
      if (!backward) continue;
      T* to = layer.matrix + (begin + r) * layer.in_row;
      for (int64_t k = 0; k < in; ++k) to[k] = row[layer.inputs[k]];
      std::fill(to + in, to + in_blocks * masked_lanes, T{});
    }
    if (!backward) turn_columns(rows_.data(), in, places_.data(), layer.matrix + begin, layer.out_row);
    for (int64_t k = 0; k < in; ++k) in_order_[k] = sees_[layer.inputs[k]] != 0;
    MaskedRange& seen = layer.seen[block] = range_of(in_order_.data(), in);
    if (!backward) continue;
    seen = {seen.first / masked_lanes, (seen.last + masked_lanes - 1) / masked_lanes};
    for (int64_t k = 0; k < in; ++k) touched_[k / masked_lanes * out_blocks + block] |= in_order_[k];
  }
  for (int64_t o = 0; !backward && o < layer.out_row; ++o) layer.start[o] = o < out ? layer.bias[layer.order[o]] : T{};
  for (int64_t b = 0; backward && b < in_blocks; ++b) {
    const MaskedRange fed = range_of(touched_.data() + b * out_blocks, out_blocks);
    layer.feeds[b] = {fed.first * masked_lanes, std::min(fed.last * masked_lanes, out)};
  }
}

}  // namespace hk::masked
