// rational_quadratic_spline: forward and backward. Contract: hybridkern/ops.
//
// Work is divided into tiles of whole rows, or of parts of one row where rows are long. The raw parameters of an
// element lie together (vectors, and images in channels_last), or those of one kind lie together (other images).
#include <algorithm>
#include <memory>
#include <tuple>

#include "../cpu/operand.h"
#include "../cpu/shared_gradients.h"
#include "contract.h"

namespace hk {
namespace {

template <class T>
SplineConstants<T> constants_of(const SplineSpec& s) {
  SplineConstants<T> c{};
  c.bins = s.bins;
  c.derivatives = s.derivatives();
  c.fixed_ends = c.derivatives == s.bins - 1 ? 1 : 0;
  c.ties_ends = s.ties_ends();
  c.wraps = s.wraps();
  const double range = s.high - s.low, bins = static_cast<double>(s.bins);
  c.low = static_cast<T>(s.low), c.high = static_cast<T>(s.high);
  c.middle = static_cast<T>(0.5 * (s.low + s.high));
  c.range = static_cast<T>(range), c.inverse_range = static_cast<T>(1 / range);
  const double floors[2] = {s.min_width, s.min_height};
  for (int side = 0; side < 2; ++side) {
    c.floor[side] = static_cast<T>(floors[side]);
    c.share[side] = static_cast<T>(1 - floors[side] * bins);
  }
  c.gain = static_cast<T>(s.gain), c.beta = static_cast<T>(s.beta), c.inverse_beta = static_cast<T>(1 / s.beta);
  c.least = static_cast<T>(s.least);
  c.inverse_clip = s.is_zuko() ? static_cast<T>(-1 / std::log(s.least)) : T(0);
  return c;
}

// Elements [i, i + n) of rows [b, b + rows).
struct Tile {
  int64_t b, rows, i, n;
  int64_t elements() const { return rows * n; }
};

// How rows of `row` elements with `numbers` parameters each are divided; by these two alone.
struct Tiling {
  static constexpr int64_t most_elements = 256, most_numbers = 8192, least_elements = 64;
  int64_t rows, row, high, pieces, wide;  // rows and elements of a tile; tiles of a row

  Tiling(int64_t rows_, int64_t row_, int64_t numbers) : rows(rows_), row(row_) {
    const int64_t room = most_numbers / numbers / 32 * 32;
    wide = std::clamp(room, least_elements, most_elements);
    high = row > 0 && row < wide ? wide / row : 1;
    pieces = row > 0 ? (row + wide - 1) / wide : 0;
  }
  int64_t count() const { return pieces * ((rows + high - 1) / high); }
  Tile at(int64_t unit) const {
    const int64_t b = unit / pieces * high, i = unit % pieces * wide;
    return {b, std::min(high, rows - b), i, std::min(wide, row - i)};
  }
};

// One operand of all elements.
struct Rows {
  RowOrder order;
  Operand operand;
  int64_t each = 1;  // numbers of an element

  int64_t row() const { return order.extent.row(); }
  template <class T>
  bool lies_so(const Tile& tile) const {
    return is_direct<T>(operand) && (tile.rows == 1 || operand.batch_stride == row());
  }
  template <class T>
  const T* read(const Tile& tile, T* buffer) const {
    if (lies_so<T>(tile)) return read_block<T>(operand, order, tile.b, tile.i * each, tile.n * each, buffer);
    for (int64_t r = 0; r < tile.rows; ++r)
      copy_block(operand, order, tile.b + r, tile.i * each, tile.n * each, buffer + r * tile.n * each);
    return buffer;
  }
  template <class T>
  T* target(const Tile& tile, T* buffer) const {
    return lies_so<T>(tile) ? block_target<T>(operand, tile.b, tile.i * each, buffer) : buffer;
  }
  template <class T>
  void write(const Tile& tile, const T* from) const {
    if (lies_so<T>(tile)) return;
    for (int64_t r = 0; r < tile.rows; ++r)
      send_block(operand, order, tile.b + r, tile.i * each, tile.n * each, from + r * tile.n * each);
  }
};

// The raw parameters, or their gradients: records of an element, or a column for each number.
struct Numbers {
  bool records;
  int64_t count;
  std::vector<Rows> parts;  // one, or `count`

  Numbers(const Tensor& params, const Tensor& x, const RowOrder& order, int64_t count_) : count(count_) {
    records = order.pixel_major;
    const auto [channels, pixels] = order.extent;
    if (!records) {
      for (int64_t p = 0; p < count; ++p) parts.push_back({order, operand(params, order, 1, p, count)});
      return;
    }
    const RowOrder own = x.dim() == 2 ? RowOrder{{channels, count}, false} : RowOrder{{channels * count, pixels}, true};
    parts.push_back({own, operand(params, own), count});
  }

  template <class T>
  const T* read(const Tile& tile, int64_t stride, T* buffer) const {
    if (records) return parts[0].read(tile, buffer);
    for (int64_t p = 0; p < count; ++p) {
      const T* from = parts[p].read(tile, buffer + p * stride);
      if (from != buffer + p * stride) std::copy_n(from, tile.elements(), buffer + p * stride);
    }
    return buffer;
  }
  template <class T>
  T* target(const Tile& tile, T* buffer) const {
    return records ? parts[0].target(tile, buffer) : buffer;
  }
  template <class T>
  void write(const Tile& tile, int64_t stride, const T* from) const {
    if (records) return parts[0].write(tile, from);
    for (int64_t p = 0; p < count; ++p) {
      const T* own = from + p * stride;
      if (parts[p].lies_so<T>(tile))
        std::copy_n(own, tile.elements(), block_target<T>(parts[p].operand, tile.b, tile.i, nullptr));
      else
        parts[p].write(tile, own);
    }
  }
};

// Memory that nobody has written.
template <class T>
std::unique_ptr<T[]> room_for(int64_t numbers) {
  return std::unique_ptr<T[]>(new T[numbers]);
}

// What one thread needs.
template <class T>
struct Workspace {
  static constexpr int64_t flat = Tiling::most_elements + max_lanes;
  int64_t stride;
  size_t scratch_bytes;
  std::unique_ptr<T[]> numbers, gradients, scratch;
  T x[flat], y[flat], log_slope[flat], grad_x[flat], grad_y[flat], grad_log_slope[flat];

  explicit Workspace(const SplineConstants<T>& c, const Tiling& tiling, bool backward)
      : stride((tiling.wide + max_lanes - 1) / max_lanes * max_lanes),
        scratch_bytes(c.scratch() * sizeof(T) + 64),
        numbers(room_for<T>(c.numbers() * stride)),
        gradients(room_for<T>(backward ? c.numbers() * stride : 0)),
        scratch(room_for<T>(scratch_bytes / sizeof(T))) {}

  SplineBlock<T> block(const Tile& tile, const Rows& x_rows, const Numbers& params) {
    SplineBlock<T> out{};
    out.n = tile.elements();
    out.x = x_rows.read(tile, x);
    out.records = params.records;
    out.stride = stride;
    out.params = params.read(tile, stride, numbers.get());
    void* aligned = scratch.get();
    size_t space = scratch_bytes;
    out.scratch = static_cast<T*>(std::align(64, 64, aligned, space));
    return out;
  }
};

// In eight partial sums, which do not wait for each other.
template <class T>
double sum_of(const T* values, int64_t n) {
  double part[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int64_t k = 0; k < 8; ++k) part[k] += values[i + k];
  for (; i < n; ++i) part[i % 8] += values[i];
  return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

// Calls body(workspace, tile) for every tile, in parallel.
template <class T, class F>
void for_tiles(const Tiling& tiling, const SplineConstants<T>& c, bool backward, const F& body) {
  const int64_t each = std::min(tiling.row * tiling.high, tiling.wide) * c.numbers();
  torch::stable::parallel_for(0, tiling.count(), grain_of(each), [&](int64_t begin, int64_t end) {
    if (begin == end) return;
    const auto workspace = std::make_unique<Workspace<T>>(c, tiling, backward);
    for (int64_t unit = begin; unit < end; ++unit) body(*workspace, tiling.at(unit));
  });
}

template <class T>
void forward(const Tensor& x, const Tensor& params, const std::optional<Tensor>& log_det, Tensor& y, Tensor& total,
             const SplineSpec& spec) {
  const SplineConstants<T> c = constants_of<T>(spec);
  const RowOrder order = order_of(x);
  const Rows from{order, operand(x, order)}, to{order, operand(y, order)};
  const Numbers numbers(params, x, order, c.numbers());
  const auto kernel = kernels<T>().spline[spec.scheme][spec.inverse][0];
  const Tiling tiling(x.size(0), order.extent.row(), c.numbers());
  RowSums sums(tiling.rows, tiling.pieces);
  for_tiles<T>(tiling, c, false, [&](Workspace<T>& workspace, const Tile& tile) {
    SplineBlock<T> block = workspace.block(tile, from, numbers);
    block.y = to.target(tile, workspace.y);
    block.log_slope = workspace.log_slope;
    kernel(block, c);
    to.write(tile, block.y);
    for (int64_t r = 0; r < tile.rows; ++r)
      sums.at(tile.b + r, tile.i / tiling.wide) = sum_of(block.log_slope + r * tile.n, tile.n);
  });
  const RowTotals start(log_det);
  write_totals(total, [&](int64_t b) { return sums.total(b) + start.at(b); });
}

template <class T>
struct Backward {
  const SplineSpec& spec;
  const SplineConstants<T> c = constants_of<T>(spec);
  const RowOrder order;
  const Rows from, grad_x;
  Rows incoming{};
  const Numbers numbers, gradients;
  const RowTotals grad_totals;
  const Tiling tiling;

  Backward(const Tensor& x, const Tensor& params, const std::optional<Tensor>& grad_y,
           const std::optional<Tensor>& grad_log_det, Tensor& to_x, Tensor& to_params, const SplineSpec& spec_)
      : spec(spec_),
        order(order_of(x)),
        from{order, operand(x, order)},
        grad_x{order, operand(to_x, order)},
        numbers(params, x, order, c.numbers()),
        gradients(to_params, x, order, c.numbers()),
        grad_totals(grad_log_det),
        tiling(x.size(0), order.extent.row(), c.numbers()) {
    if (grad_y) incoming = {order, operand(*grad_y, order)};
  }

  void step(Workspace<T>& workspace, const Tile& tile, T* to) const {
    SplineBlock<T> block = workspace.block(tile, from, numbers);
    if (incoming.operand.present()) block.grad_y = incoming.read(tile, workspace.grad_y);
    for (int64_t r = 0; r < tile.rows; ++r)
      std::fill_n(workspace.grad_log_slope + r * tile.n, tile.n, static_cast<T>(grad_totals.at(tile.b + r)));
    block.grad_log_slope = workspace.grad_log_slope;
    block.grad_x = grad_x.target(tile, workspace.grad_x);
    block.grad_params = to;
    kernels<T>().spline[spec.scheme][spec.inverse][1](block, c);
    grad_x.write(tile, block.grad_x);
  }

  void run() const {
    for_tiles<T>(tiling, c, true, [&](Workspace<T>& workspace, const Tile& tile) {
      T* to = gradients.target(tile, workspace.gradients.get());
      step(workspace, tile, to);
      gradients.write(tile, workspace.stride, to);
    });
  }

  // Parameters that the batch shares: tiles of `tile_rows` rows, whatever the number of threads, are summed in double
  // precision, and then these sums.
  void run_shared() const {
    const int64_t down = std::max<int64_t>(1, (tiling.rows + tile_rows - 1) / tile_rows);
    const int64_t size = c.numbers() * tiling.row;
    std::vector<double> partial(down * size, 0.0);
    torch::stable::parallel_for(0, down * tiling.pieces, 1, [&](int64_t begin, int64_t end) {
      if (begin == end) return;
      const auto workspace = std::make_unique<Workspace<T>>(c, tiling, true);
      for (int64_t unit = begin; unit < end; ++unit)
        sum_rows(*workspace, unit / tiling.pieces * tile_rows, unit % tiling.pieces * tiling.wide,
                 partial.data() + unit / tiling.pieces * size);
    });
    for (int64_t d = 1; d < down; ++d)
      for (int64_t k = 0; k < size; ++k) partial[k] += partial[d * size + k];
    write_shared(partial.data());
  }

 private:
  void sum_rows(Workspace<T>& workspace, int64_t first, int64_t i, double* sums) const {
    const int64_t n = std::min(tiling.wide, tiling.row - i), last = std::min(first + tile_rows, tiling.rows);
    for (int64_t b = first; b < last; b += tiling.high) {
      const Tile tile{b, std::min(tiling.high, last - b), i, n};
      T* to = workspace.gradients.get();
      step(workspace, tile, to);
      for (int64_t r = 0; r < tile.rows; ++r) {
        if (gradients.records) {
          add(to + r * n * c.numbers(), n * c.numbers(), sums + i * c.numbers());
        } else {
          for (int64_t p = 0; p < c.numbers(); ++p)
            add(to + p * workspace.stride + r * n, n, sums + p * tiling.row + i);
        }
      }
    }
  }

  static void add(const T* from, int64_t n, double* to) {
    for (int64_t k = 0; k < n; ++k) to[k] += from[k];
  }

  void write_shared(const double* sums) const {
    for (const Rows& part : gradients.parts) {
      const int64_t row = part.row();
      for (int64_t i = 0; i < row; i += block_size)
        write_values<T>(part.operand, part.order, i, std::min(block_size, row - i), sums + i);
      sums += row;
    }
  }
};

std::tuple<Tensor, Tensor> rational_quadratic_spline_forward(const Tensor& x, const Tensor& params,
                                                             const std::optional<Tensor>& log_det, int64_t code,
                                                             double low, double high, double min_width,
                                                             double min_height, double least, double gain,
                                                             double beta) {
  const SplineSpec spec(code, low, high, min_width, min_height, least, gain, beta);
  check_spline_forward(x, params, log_det, spec);
  Tensor y = empty_matching(x);
  Tensor total = empty_totals(x, log_det && is_double(*log_det));
  Writable out(y);
  const Tensor xf = foldable(x), pf = foldable(params);
  if (is_double(x))
    forward<double>(xf, pf, log_det, out.tensor, total, spec);
  else
    forward<float>(xf, pf, log_det, out.tensor, total, spec);
  out.finish();
  return {y, total};
}

template <class T>
void backward(const Tensor& x, const Tensor& params, const std::optional<Tensor>& grad_y,
              const std::optional<Tensor>& grad_log_det, Tensor& to_x, Tensor& to_params, const SplineSpec& spec) {
  const Backward<T> all(x, params, grad_y, grad_log_det, to_x, to_params, spec);
  if (is_shared(params, x.size(0)))
    all.run_shared();
  else
    all.run();
}

std::tuple<Tensor, Tensor> rational_quadratic_spline_backward(const Tensor& x, const Tensor& params,
                                                              const std::optional<Tensor>& grad_y,
                                                              const std::optional<Tensor>& grad_log_det, int64_t code,
                                                              double low, double high, double min_width,
                                                              double min_height, double least, double gain,
                                                              double beta) {
  const SplineSpec spec(code, low, high, min_width, min_height, least, gain, beta);
  check_spline_backward(x, params, grad_y, grad_log_det, spec);
  Tensor grad_x = empty_matching(x), grad_params = empty_matching(params);
  Writable to_x(grad_x), to_params(grad_params);
  const Tensor xf = foldable(x), pf = foldable(params);
  std::optional<Tensor> gf;
  if (grad_y) gf = foldable(*grad_y);
  if (is_double(x))
    backward<double>(xf, pf, gf, grad_log_det, to_x.tensor, to_params.tensor, spec);
  else
    backward<float>(xf, pf, gf, grad_log_det, to_x.tensor, to_params.tensor, spec);
  to_x.finish();
  to_params.finish();
  return {grad_x, grad_params};
}

}  // namespace
}  // namespace hk

STABLE_TORCH_LIBRARY_IMPL(hybridkern, CPU, m) {
  m.impl("rational_quadratic_spline_forward", TORCH_BOX(&hk::rational_quadratic_spline_forward));
  m.impl("rational_quadratic_spline_backward", TORCH_BOX(&hk::rational_quadratic_spline_backward));
}
