// The products of masked_network over vectors of one instruction set.
#pragma once

#include "../affine_coupling/math.h"
#include "../cpu/vectors.h"
#include "network.h"

namespace hk::HK_ISA {

// Order of ACTIVATIONS in hybridkern/ops/masked_network/operator.py.
enum class MaskedActivation : int { none, relu, tanh, elu };
static_assert(static_cast<int>(MaskedActivation::elu) + 1 == masked_activations);

template <class V>
HK_INLINE V activated(V v, MaskedActivation activation) {
  switch (activation) {
    case MaskedActivation::relu:
      return at_least(v, 0);
    case MaskedActivation::tanh: {
      V sech_squared;
      return hyperbolic_tangent(v, sech_squared);
    }
    case MaskedActivation::elu: {
      V q, below;
      exponential_of_negative(at_most(v, 0), q, below);
      return select(v > 0, v, below);
    }
    default:
      return v;
  }
}

// The derivative, from the result of the activation, times `grad`. As in PyTorch, the slope of ReLU at 0 is 0.
template <class V>
HK_INLINE V gated(V grad, V result, MaskedActivation activation) {
  switch (activation) {
    case MaskedActivation::relu:
      return select(result <= 0, V{}, grad);
    case MaskedActivation::tanh:
      return grad * (1 - result * result);
    case MaskedActivation::elu:
      return select(result > 0, grad, grad * (result + 1));
    default:
      return grad;
  }
}

// Results of R rows and one block of units, in registers.
template <class T, int R>
struct MaskedTile {
  using V = typename VectorOf<T>::type;
  static constexpr int lanes = Lanes<V>::count, vectors = static_cast<int>(masked_lanes) / lanes;
  V sum[R][vectors];

  // sum(r) += left(r, k) * right(k) for k of the range; left lies in rows `pace` apart, or, Transposed, in columns.
  template <bool Transposed>
  HK_INLINE void add(const T* left, int64_t pace, const T* right, int64_t right_row, int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) {
      V factor[vectors];
      for (int v = 0; v < vectors; ++v) factor[v] = load<V>(right + k * right_row + v * lanes);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        // subtracting zero changes nothing, so the compiler loads and broadcasts in one instruction
        const V weight = left[Transposed ? k * pace + r : r * pace + k] - V{};
        for (int v = 0; v < vectors; ++v) sum[r][v] += weight * factor[v];
      }
    }
  }
};

// Rows of a tile: eight accumulators hide the latency of their additions.
template <class T>
constexpr int masked_tile = 8 / MaskedTile<T, 1>::vectors < 1 ? 1 : 8 / MaskedTile<T, 1>::vectors;

template <bool Forward, int R, class T>
HK_INLINE void masked_tile_of(const MaskedProduct<T>& p, int64_t row, int64_t block) {
  using Tile = MaskedTile<T, R>;
  using V = typename Tile::V;
  const auto activation = static_cast<MaskedActivation>(p.activation);
  const int64_t column = block * masked_lanes;
  Tile tile;
  for (int v = 0; v < Tile::vectors; ++v) {
    const V start = Forward ? load<V>(p.start + column + v * Tile::lanes) : V{};
    for (int r = 0; r < R; ++r) tile.sum[r][v] = start;
  }
  tile.template add<false>(p.left + row * p.left_row, p.left_row, p.matrix + column, p.matrix_row,
                           p.ranges[block].first, p.ranges[block].last);
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < Tile::vectors; ++v) {
      const int64_t at = (row + r) * p.out_row + column + v * Tile::lanes;
      V value = tile.sum[r][v];
      if constexpr (Forward) {
        if (p.skip) value += load<V>(p.skip + at);
        if (p.plain) store<V>(p.plain + at, value);
        value = activated(value, activation);
      } else {
        if (p.gate) value = gated(value, load<V>(p.gate + at), activation);
        for (int64_t i = 0; i < p.more_count; ++i) value += load<V>(p.more[i] + at);
      }
      store<V>(p.out + at, value);
    }
}

template <bool Forward, class T>
void masked_product(const MaskedProduct<T>& p) {
  constexpr int most = masked_tile<T>;
  for (int64_t block = 0; block < p.blocks; ++block) {  // a block of the matrix stays in the first-level cache
    int64_t row = 0;
    for (; row + most <= p.rows; row += most) masked_tile_of<Forward, most>(p, row, block);
    if constexpr (most > 4)
      for (; row + 4 <= p.rows; row += 4) masked_tile_of<Forward, 4>(p, row, block);
    for (; row < p.rows; ++row) masked_tile_of<Forward, 1>(p, row, block);
  }
}

template <class T>
void masked_gradient(const MaskedGradient<T>& g) {
  constexpr int most = masked_tile<T>;
  using Tile = MaskedTile<T, most>;
  using V = typename Tile::V;
  static_assert(masked_lanes % most == 0);
  for (int64_t begin = 0; begin < g.rows; begin += masked_slice) {  // what is read stays in the first-level cache
    const int64_t rows = g.rows - begin < masked_slice ? g.rows - begin : masked_slice;
    const T *grads = g.grads + begin * g.grads_row, *inputs = g.inputs + begin * g.inputs_row;
    for (int64_t block = g.blocks.first; block < g.blocks.last; ++block)
      for (int64_t unit = 0; unit < masked_lanes; unit += most) {
        Tile tile;
        T* sums = g.sums + unit * g.sums_row + block * masked_lanes;
        for (int r = 0; r < most; ++r)
          for (int v = 0; v < Tile::vectors; ++v) tile.sum[r][v] = load<V>(sums + r * g.sums_row + v * Tile::lanes);
        tile.template add<true>(grads + unit, g.grads_row, inputs + block * masked_lanes, g.inputs_row, 0, rows);
        for (int r = 0; r < most; ++r)
          for (int v = 0; v < Tile::vectors; ++v) store<V>(sums + r * g.sums_row + v * Tile::lanes, tile.sum[r][v]);
      }
    for (int v = 0; v < Tile::vectors; ++v) {
      V sum = load<V>(g.bias_sums + v * Tile::lanes);
      for (int64_t r = 0; r < rows; ++r) sum += load<V>(grads + r * g.grads_row + v * Tile::lanes);
      store<V>(g.bias_sums + v * Tile::lanes, sum);
    }
  }
}

}  // namespace hk::HK_ISA
