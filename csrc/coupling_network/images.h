// Between images and matrices over pixels: the nine neighbours of a pixel are nine groups of columns, row by row.
#pragma once

#include "blocks.h"

namespace hk::HK_ISA {

using network::Image;
using network::Slices;

constexpr int64_t slack = 64;  // numbers that may be read or written behind an array

// Pixels of one slice: rows [top, bottom) of examples [first, last).
struct Slice {
  int64_t first, last, top, bottom, width;
  int64_t rows() const { return bottom - top; }
  int64_t pixels() const { return (last - first) * rows() * width; }
};

HK_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

inline Slice slice_at(const Slices& slices, int64_t index) {
  const int64_t group = index / slices.bands, band = index % slices.bands;
  const int64_t first = group * slices.examples, top = band * slices.rows;
  return {first, least(first + slices.examples, slices.batch), top, least(top + slices.rows, slices.height),
          slices.width};
}

// Numbers in the slice's image with a border of one pixel.
inline int64_t bordered_size(const Slices& slices, int64_t channels) {
  return slices.examples * (slices.rows + 2) * (slices.width + 2) * channels + slack;
}

// The slice of an image as [example][row][column][channel] with a border of one pixel: neighbouring rows where there
// are any, else zero. `sums` (or nullptr) receives each channel's sum over the slice.
template <class E, class T>
void bordered(const Image& image, const Slice& slice, int64_t height, int64_t channels, E* to, T* sums) {
  const int64_t width = slice.width, row_size = (width + 2) * channels;
  if (sums)
    for (int64_t c = 0; c < channels; ++c) sums[c] = 0;
  for (int64_t b = slice.first; b < slice.last; ++b)
    for (int64_t y = slice.top - 1; y <= slice.bottom; ++y, to += row_size) {
      memset(static_cast<void*>(to), 0, row_size * sizeof(E));
      if (y < 0 || y >= height) continue;
      const T* row = static_cast<const T*>(image.data) + b * image.batch + y * image.row;
      const bool own = y >= slice.top && y < slice.bottom;
      for (int64_t x = 0; x < width; ++x) {
        const T* from = row + x * image.column;
        E* target = to + (x + 1) * channels;
        for (int64_t c = 0; c < channels; ++c) target[c] = rounded(from[c * image.channel], E{});
        if (sums && own)
          for (int64_t c = 0; c < channels; ++c) sums[c] += from[c * image.channel];
      }
    }
}

// The neighbourhoods of the slice's pixels, [block of pixels][block of columns] row-major blocks; padding is zero.
// `row` has room for the padded columns and `slack`.
template <class E>
void neighbourhoods(const E* image, const Slice& slice, int64_t channels, int64_t depth, int64_t blocks, E* row,
                    E* to) {
  const int64_t row_size = (slice.width + 2) * channels, run = 3 * channels, columns = depth * side;
  int64_t pixel = 0;
  const auto send = [&] {
    E* target = to + (pixel / side) * depth * area + (pixel % side) * side;
    for (int64_t k = 0; k < depth; ++k) memcpy(target + k * area, row + k * side, side * sizeof(E));
    ++pixel;
  };
  for (int64_t b = slice.first; b < slice.last; ++b, image += 2 * row_size)
    for (int64_t y = slice.top; y < slice.bottom; ++y, image += row_size)
      for (int64_t x = 0; x < slice.width; ++x) {
        for (int64_t dy = 0; dy < 3; ++dy) {
          const E* from = image + dy * row_size + x * channels;
          E* target = row + dy * run;
          constexpr int64_t step = 64 / sizeof(E);
          for (int64_t i = 0; i < run; i += step) memcpy(target + i, from + i, 64);
        }
        for (int64_t i = 9 * channels; i < columns; ++i) row[i] = E{};
        send();
      }
  for (int64_t i = 0; i < columns; ++i) row[i] = E{};
  while (pixel < blocks * side) send();
}

// Adds up what the slice's pixels send to their neighbours: columns [pixel][neighbour][channel], pixels `stride`
// apart. Rows of other slices that this one reaches go to `halo` (two rows: above, below), to be added later. `bias`
// and `line` (one row of the image) have `slack` behind them, as have `columns`.
template <class T>
void gather_sums(const T* columns, int64_t stride, const Slices& slices, const Slice& slice, int64_t channels,
                 const T* bias, T* line, T* image, T* halo) {
  using V = Vec<T>;
  constexpr int64_t lanes = Lanes<V>::count;
  const int64_t width = slice.width, row_size = width * channels;
  for (int64_t b = slice.first; b < slice.last; ++b, columns += slice.rows() * width * stride)
    for (int64_t y = slice.top - 1; y <= slice.bottom; ++y) {
      if (y < 0 || y >= slices.height) continue;
      const bool own = y >= slice.top && y < slice.bottom;
      for (int64_t x = 0; x < width; ++x) {
        const T* from[9];
        int terms = 0;
        for (int64_t dy = -1; dy <= 1; ++dy)
          for (int64_t dx = -1; dx <= 1; ++dx) {
            const int64_t sy = y - dy, sx = x - dx;
            if (sy < slice.top || sy >= slice.bottom || sx < 0 || sx >= width) continue;
            from[terms++] = columns + ((sy - slice.top) * width + sx) * stride + (dy * 3 + dx + 4) * channels;
          }
        for (int64_t c = 0; c < channels; c += lanes) {
          V sum = own && bias ? load<V>(bias + c) : V{};
          for (int t = 0; t < terms; ++t) sum += load<V>(from[t] + c);
          store<V>(line + x * channels + c, sum);
        }
      }
      T* target = own ? image + (b * slices.height + y) * row_size : halo + (y < slice.top ? 0 : row_size);
      memcpy(target, line, row_size * sizeof(T));
    }
}

// Adds the rows that bands of one example sent to each other.
template <class T>
void add_halos(const T* halos, const Slices& slices, int64_t channels, T* image) {
  const int64_t row_size = slices.width * channels;
  const auto add = [&](T* to, const T* from) {
    for (int64_t i = 0; i < row_size; ++i) to[i] += from[i];
  };
  for (int64_t index = 0; index < slices.count; ++index) {
    const Slice slice = slice_at(slices, index);
    T* example = image + slice.first * slices.height * row_size;
    const T* halo = halos + index * 2 * row_size;
    if (slice.top > 0) add(example + (slice.top - 1) * row_size, halo);
    if (slice.bottom < slices.height) add(example + slice.bottom * row_size, halo + row_size);
  }
}

}  // namespace hk::HK_ISA
