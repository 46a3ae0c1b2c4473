// The weights of a network, packed for the products; included after HK_ISA is set.
#pragma once

#include "images.h"
#include "work.h"

namespace hk::HK_ISA {

template <class Engine>
class Weights {
 public:
  explicit Weights(const Network& net)
      : net_(net),
        plan_(net.slices),
        in_(blocks_for(9 * net.in)),
        hidden_(blocks_for(net.hidden)),
        out_(blocks_for(9 * net.out)),
        blocks_(plan_.blocks) {}

 protected:
  using E = typename Engine::E;
  using T = typename Engine::T;
  using V = Vec<T>;

  void padded_bias(const void* from, T* to) const {
    memset(static_cast<void*>(to), 0, hidden_ * side * sizeof(T));
    memcpy(to, from, net_.hidden * sizeof(T));
  }

  // A weight as the right operand: block (column block j, depth block k), from element(row, column) of its transpose.
  template <bool Transposed, class F>
  static void pack(int64_t columns, int64_t depth, E* to, const F& fill) {
    each(columns, [&](int64_t begin, int64_t end) {
      alignas(64) E block[area];
      for (int64_t j = begin; j < end; ++j)
        for (int64_t k = 0; k < depth; ++k) {
          // row-major with the hidden channel of the later layer, or the tap, as `fill` has it
          if (Transposed)
            fill(j, k, block), Engine::pack_transposed(block, to + (j * depth + k) * area);
          else
            fill(k, j, block), Engine::pack(block, to + (j * depth + k) * area);
        }
    });
  }

  // Fills the block (r, c) of a matrix of rows x columns, padded with zeros.
  template <class F>
  static auto filler(int64_t rows, int64_t columns, const F& element) {
    return [=](int64_t r, int64_t c, E* block) {
      const int64_t height = least(side, rows - r * side), width = least(side, columns - c * side);
      for (int64_t i = 0; i < height; ++i)
        for (int64_t j = 0; j < width; ++j) block[i * side + j] = rounded(element(r * side + i, c * side + j), E{});
      if (height < side || width < side) clear_padding(block, height, width);
    };
  }

  // w1 as (hidden, neighbour * in), w2 as it is, w3 as (neighbour * out, hidden), its neighbours mirrored: there the
  // pixel that is read sends, where a convolution has the pixel that is written gather.
  auto matrix1() const {
    const T* w = static_cast<const T*>(net_.w1);
    const int64_t* place = places1_;
    const int64_t row = net_.at1.out;
    return filler(net_.hidden, 9 * net_.in, [=](int64_t h, int64_t k) { return w[h * row + place[k]]; });
  }
  auto matrix2() const {
    const T* w = static_cast<const T*>(net_.w2);
    const int64_t hidden = net_.hidden;
    return [=](int64_t r, int64_t c, E* block) {
      const int64_t height = least(side, hidden - r * side), width = least(side, hidden - c * side);
      const T* from = w + r * side * hidden + c * side;
      if (height == side && width == side) {
        for (int64_t i = 0; i < side; ++i) {
          V row[vectors<T>];
          for (int64_t v = 0; v < vectors<T>; ++v) row[v] = load<V>(from + i * hidden + v * Lanes<V>::count);
          Engine::store_row(block + i * side, row);
        }
        return;
      }
      for (int64_t i = 0; i < height; ++i)
        for (int64_t j = 0; j < width; ++j) block[i * side + j] = rounded(from[i * hidden + j], E{});
      clear_padding(block, height, width);
    };
  }
  auto matrix3() const {
    const T* w = static_cast<const T*>(net_.w3);
    const int64_t* place = places3_;
    const int64_t column = net_.at3.in;
    return filler(9 * net_.out, net_.hidden, [=](int64_t k, int64_t h) { return w[place[k] + h * column]; });
  }

  // Where the columns of the first matrix and the rows of the third one begin in the weights: a table, since divisions
  // would take as long as the rest of the packing.
  void fill_places() const {
    for (int64_t tap = 0; tap < 9; ++tap) {
      for (int64_t c = 0; c < net_.in; ++c) places1_[tap * net_.in + c] = c * net_.at1.in + net_.at1.tap(tap);
      for (int64_t o = 0; o < net_.out; ++o) places3_[tap * net_.out + o] = o * net_.at3.out + net_.at3.tap(8 - tap);
    }
  }

  // Of each weight: as stored, [column block][depth block].
  void pack_forward(bool third) {
    Parts parts;
    const auto take_all = [&] {
      w1_ = parts.take<E>(in_ * hidden_ * area);
      w2_ = parts.take<E>(hidden_ * hidden_ * area);
      w3_ = parts.take<E>(third ? hidden_ * out_ * area : 0);
      b1_ = parts.take<T>(hidden_ * side + slack);
      b2_ = parts.take<T>(hidden_ * side + slack);
      places1_ = parts.take<int64_t>(9 * net_.in);
      places3_ = parts.take<int64_t>(9 * net_.out);
    };
    take_all();
    parts.place(weights_.allocate(parts.used()));
    take_all();
    fill_places();
    padded_bias(net_.b1, b1_);
    padded_bias(net_.b2, b2_);
    if (!third && net_.hidden1) return;  // nothing is recomputed
    pack<true>(hidden_, in_, w1_, matrix1());
    pack<true>(hidden_, hidden_, w2_, matrix2());
    if (third) pack<true>(out_, hidden_, w3_, matrix3());
  }

  void pack_backward() {
    Parts parts;
    const auto take_all = [&] {
      back1_ = parts.take<E>(in_ * hidden_ * area);
      back2_ = parts.take<E>(hidden_ * hidden_ * area);
      back3_ = parts.take<E>(hidden_ * out_ * area);
    };
    take_all();
    parts.place(back_.allocate(parts.used()));
    take_all();
    if (net_.grad_x) pack<false>(in_, hidden_, back1_, matrix1());
    pack<false>(hidden_, hidden_, back2_, matrix2());
    pack<false>(hidden_, out_, back3_, matrix3());
  }

  const Network& net_;
  const Slices& plan_;
  const int64_t in_, hidden_, out_, blocks_;  // blocks of 32
  Buffer weights_, back_;
  E *w1_, *w2_, *w3_, *back1_, *back2_, *back3_;
  T *b1_, *b2_;
  int64_t *places1_, *places3_;
};

}  // namespace hk::HK_ISA
