// The layers of one slice, forward and backward, in the memory of one thread; included after HK_ISA is set.
#pragma once

#include "weights.h"

namespace hk::HK_ISA {

template <class Engine>
class Layers : protected Weights<Engine> {
 public:
  using Weights<Engine>::Weights;

 protected:
  using Base = Weights<Engine>;
  using Base::net_, Base::plan_, Base::in_, Base::hidden_, Base::out_, Base::blocks_;
  using Base::w1_, Base::w2_, Base::b1_, Base::b2_;
  using typename Base::E, typename Base::T, typename Base::V;

  // What one thread needs for a slice.
  struct Forward {
    E *image, *row, *inputs, *hidden1, *hidden2;
    T *columns, *line, *bias3;
  };
  struct Backward {
    Forward forward;
    E *image, *outputs, *grad1, *grad2;
    T* columns;
  };

  void take(Parts& parts, Forward& own) const {
    own.image = parts.take<E>(bordered_size(plan_, net_.in));
    own.row = parts.take<E>((in_ > out_ ? in_ : out_) * side + slack);
    own.inputs = parts.take<E>(blocks_ * in_ * area);
    own.hidden1 = parts.take<E>(net_.hidden1 ? 0 : blocks_ * hidden_ * area);
    own.hidden2 = parts.take<E>(net_.hidden2 ? 0 : blocks_ * hidden_ * area);
    own.columns = parts.take<T>(blocks_ * out_ * area + slack);
    own.line = parts.take<T>(plan_.width * (net_.in > net_.out ? net_.in : net_.out) + slack);
    own.bias3 = parts.take<T>(net_.out + slack);
  }

  void take(Parts& parts, Backward& own) const {
    take(parts, own.forward);
    own.image = parts.take<E>(bordered_size(plan_, net_.out));
    own.outputs = parts.take<E>(blocks_ * out_ * area);
    own.grad1 = parts.take<E>(blocks_ * hidden_ * area);
    own.grad2 = parts.take<E>(blocks_ * hidden_ * area);
    own.columns = parts.take<T>(blocks_ * in_ * area + slack);
  }

  E* kept(void* hidden, int64_t s, E* own) const {
    return hidden ? static_cast<E*>(hidden) + s * blocks_ * hidden_ * area : own;
  }

  // The two hidden layers of a slice; leaves the neighbourhoods of x in own.inputs.
  void hidden_layers(const Slice& slice, const Forward& own, E* hidden1, E* hidden2) const {
    bordered<E, T>(net_.x, slice, plan_.height, net_.in, own.image, nullptr);
    neighbourhoods(own.image, slice, net_.in, in_, blocks_, own.row, own.inputs);
    layer(slice, own.inputs, w1_, in_, b1_, hidden1);
    layer(slice, hidden1, w2_, hidden_, b2_, hidden2);
  }

  // max(0, a w + bias), NaN kept; zero where rows and columns are padding.
  void layer(const Slice& slice, const E* a, const E* w, int64_t depth, const T* bias, E* to) const {
    const int64_t pixels = slice.pixels();
    products<Engine>(a, w, blocks_, hidden_, depth, pixels, [&](int64_t i, int64_t j, const T* c, int64_t live) {
      constexpr int64_t lanes = Lanes<V>::count;
      E* block = to + (i * hidden_ + j) * area;
      V shift[vectors<T>];
      for (int64_t v = 0; v < vectors<T>; ++v) shift[v] = load<V>(bias + j * side + v * lanes);
      for (int64_t r = 0; r < live; ++r) {
        V row[vectors<T>];
        for (int64_t v = 0; v < vectors<T>; ++v) row[v] = at_least(load<V>(c + r * side + v * lanes) + shift[v], T{0});
        Engine::store_row(block + r * side, row);
      }
      clear(block, live, j);
    });
  }

  void clear(E* block, int64_t rows, int64_t j) const {
    const int64_t columns = net_.hidden - j * side;
    if (rows < side || columns < side) clear_padding(block, rows, least(side, columns));
  }

  // Gradients before the ReLU: a w where h > 0 (or NaN), row-major to `plain` and as a right operand over pixels to
  // `packed` (blocks of one column of blocks follow each other, `pace` columns apart); adds up its columns in `sums`.
  void masked_layer(const Slice& slice, const E* a, const E* w, int64_t depth, const E* h, E* plain, E* packed,
                    int64_t pace, T* sums) const {
    memset(sums, 0, hidden_ * side * sizeof(T));
    const int64_t pixels = slice.pixels();
    products<Engine>(a, w, blocks_, hidden_, depth, pixels, [&](int64_t i, int64_t j, const T* c, int64_t rows) {
      constexpr int64_t lanes = Lanes<V>::count;
      E* block = plain + (i * hidden_ + j) * area;
      const E* active = h + (i * hidden_ + j) * area;
      V total[vectors<T>];
      for (int64_t v = 0; v < vectors<T>; ++v) total[v] = load<V>(sums + j * side + v * lanes);
      for (int64_t r = 0; r < rows; ++r) {
        V row[vectors<T>];
        Engine::load_row(row, active + r * side);
        for (int64_t v = 0; v < vectors<T>; ++v) {
          row[v] = select(row[v] <= V{}, V{}, load<V>(c + r * side + v * lanes));
          total[v] += row[v];
        }
        Engine::store_row(block + r * side, row);
      }
      for (int64_t v = 0; v < vectors<T>; ++v) store<V>(sums + j * side + v * lanes, total[v]);
      clear(block, rows, j);
      Engine::pack(block, packed + (j * pace + i) * area);
    });
  }
};

}  // namespace hk::HK_ISA
