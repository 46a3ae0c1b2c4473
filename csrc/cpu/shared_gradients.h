// Gradients of parameters that the whole batch shares: a sum over the batch in a fixed order.
//
// Work is divided into tiles of `tile_rows` rows and `tile_columns` columns, whatever the number of threads. Within
// a tile, groups of `group_rows` rows are summed in the working type, groups and tiles in double precision.
#pragma once

#include "operand.h"

namespace hk {

constexpr int64_t tile_rows = 1024, tile_columns = 256, group_rows = 64;

// `visit(b, i, n, sums)` adds row b's share of columns [i, i + n) to `sums`, which holds `arrays` arrays of
// tile_columns elements; `write(array, i, n, totals)` takes the totals of columns [i, i + n).
template <class T, class Visit, class Write>
void sum_over_batch(int64_t rows, int64_t row, int64_t arrays, const Visit& visit, const Write& write) {
  const int64_t across = (row + tile_columns - 1) / tile_columns;
  const int64_t down = rows > 0 ? (rows + tile_rows - 1) / tile_rows : 1;  // no rows: one tile of zeros
  const int64_t tile = arrays * tile_columns;
  std::vector<double> partial(down * across * tile, 0.0);
  const int64_t per_tile = (rows < tile_rows ? rows : tile_rows) * (row < tile_columns ? row : tile_columns);
  parallel_for_density(0, down * across, grain_of(per_tile), [&](int64_t begin, int64_t end) {
    std::vector<T> sums(tile);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t i = (unit % across) * tile_columns, first = (unit / across) * tile_rows;
      const int64_t n = row - i < tile_columns ? row - i : tile_columns;
      const int64_t last = rows - first < tile_rows ? rows : first + tile_rows;
      double* totals = partial.data() + unit * tile;
      for (int64_t group = first; group < last; group += group_rows) {
        std::fill(sums.begin(), sums.end(), T(0));
        const int64_t stop = last - group < group_rows ? last : group + group_rows;
        for (int64_t b = group; b < stop; ++b) visit(b, i, n, sums.data());
        for (int64_t k = 0; k < tile; ++k) totals[k] += static_cast<double>(sums[k]);
      }
    }
  });
  for (int64_t column = 0; column < across; ++column) {
    double* totals = partial.data() + column * tile;
    for (int64_t d = 1; d < down; ++d)
      for (int64_t k = 0; k < tile; ++k) totals[k] += partial[(d * across + column) * tile + k];
    const int64_t i = column * tile_columns, n = row - i < tile_columns ? row - i : tile_columns;
    for (int64_t array = 0; array < arrays; ++array) write(array, i, n, totals + array * tile_columns);
  }
}

}  // namespace hk
