// Backward of the network, by groups of slices; included after HK_ISA is set.
#pragma once

#include "layers.h"

namespace hk::HK_ISA {

template <class Engine>
class Gradients : Layers<Engine> {
  using Base = Layers<Engine>;
  using Base::back1_, Base::back2_, Base::back3_, Base::pack_forward, Base::pack_backward;
  using Base::net_, Base::plan_, Base::in_, Base::hidden_, Base::out_, Base::blocks_;
  using Base::take, Base::kept, Base::hidden_layers, Base::masked_layer;
  using typename Base::E, typename Base::T, typename Base::Forward, typename Base::Backward;

 public:
  using Layers<Engine>::Layers;

  void run() {
    pack_forward(false);
    pack_backward();
    const int64_t matrix = blocks_ * area, in_image = plan_.width * net_.in;
    // Slices whose gradients wait for the products over pixels: at 512 hidden channels 2 MiB for each layer, of which
    // the second-level caches still hold much when the products come.
    constexpr int64_t group_blocks = 128 / sizeof(E);
    const int64_t together = least(plan_.count, group_blocks > blocks_ ? group_blocks / blocks_ : 1);
    Group group;
    Parts parts;
    const auto take_group = [&] {
      const bool again = !net_.hidden1;
      group.hidden1 = parts.take<E>(again ? together * matrix * hidden_ : 0);
      group.hidden2 = parts.take<E>(again ? together * matrix * hidden_ : 0);
      group.inputs = parts.take<E>(together * matrix * in_);
      group.outputs = parts.take<E>(together * matrix * out_);
      group.grad1 = parts.take<E>(together * matrix * hidden_);
      group.grad2 = parts.take<E>(together * matrix * hidden_);
      group.w1 = parts.take<T>(in_ * hidden_ * area);
      group.w2 = parts.take<T>(hidden_ * hidden_ * area);
      group.w3 = parts.take<T>(hidden_ * out_ * area);
      group.b1 = parts.take<T>(plan_.count * hidden_ * side);
      group.b2 = parts.take<T>(plan_.count * hidden_ * side);
      group.b3 = parts.take<T>(plan_.count * net_.out);
      group.halos = parts.take<T>(plan_.bands > 1 && net_.grad_x ? plan_.count * 2 * in_image : 0);
    };
    take_group();
    Buffer memory;
    parts.place(memory.allocate(parts.used()));
    take_group();
    for (int64_t first = 0; first < plan_.count; first += together) {
      const int64_t count = least(together, plan_.count - first);
      gradients(group, first, count, together);
      weight_gradients(group, first, count, together);
    }
    if (plan_.bands > 1 && net_.grad_x) add_halos<T>(group.halos, plan_, net_.in, static_cast<T*>(net_.grad_x));
    write_gradients(group);
  }

 private:
  // What all threads share during backward; of `together` slices, and sums of all.
  struct Group {
    E *hidden1, *hidden2, *inputs, *outputs, *grad1, *grad2;
    T *w1, *w2, *w3, *b1, *b2, *b3, *halos;
  };

  void gradients(const Group& group, int64_t first, int64_t count, int64_t together) const {
    each(count, [&](int64_t begin, int64_t end) {
      [[maybe_unused]] const typename Engine::Session session;
      Backward own;
      Parts parts;
      take(parts, own);
      parts.place(network::scratch(parts.used()));
      take(parts, own);
      for (int64_t at = begin; at < end; ++at) slice_gradients(group, own, first + at, at, together * blocks_);
    });
  }

  void slice_gradients(const Group& group, Backward& own, int64_t s, int64_t at, int64_t pace) const {
    const Slice slice = slice_at(plan_, s);
    const int64_t hidden_size = blocks_ * hidden_ * area;
    Forward forward = own.forward;
    forward.inputs = group.inputs + at * blocks_ * in_ * area;
    const E *hidden1 = kept(net_.hidden1, s, nullptr), *hidden2 = kept(net_.hidden2, s, nullptr);
    if (!hidden1) {
      E *again1 = group.hidden1 + at * hidden_size, *again2 = group.hidden2 + at * hidden_size;
      hidden_layers(slice, forward, again1, again2);
      hidden1 = again1, hidden2 = again2;
    } else {
      bordered<E, T>(net_.x, slice, plan_.height, net_.in, forward.image, nullptr);
      neighbourhoods(forward.image, slice, net_.in, in_, blocks_, forward.row, forward.inputs);
    }
    bordered<E, T>(net_.grad, slice, plan_.height, net_.out, own.image, group.b3 + s * net_.out);
    neighbourhoods(own.image, slice, net_.out, out_, blocks_, forward.row, own.outputs);
    for (int64_t i = 0; i < blocks_; ++i)
      for (int64_t j = 0; j < out_; ++j)
        Engine::pack(own.outputs + (i * out_ + j) * area, group.outputs + (j * pace + at * blocks_ + i) * area);
    masked_layer(slice, own.outputs, back3_, out_, hidden2, own.grad2, group.grad2 + at * blocks_ * area, pace,
                 group.b2 + s * hidden_ * side);
    masked_layer(slice, own.grad2, back2_, hidden_, hidden1, own.grad1, group.grad1 + at * blocks_ * area, pace,
                 group.b1 + s * hidden_ * side);
    if (!net_.grad_x) return;
    const int64_t stride = in_ * side;
    const auto keep = [&](int64_t i, int64_t j, const T* c, int64_t live) {
      for (int64_t r = 0; r < live; ++r)
        memcpy(own.columns + (i * side + r) * stride + j * side, c + r * side, side * sizeof(T));
    };
    products<Engine>(own.grad1, back1_, blocks_, in_, hidden_, slice.pixels(), keep);
    gather_sums<T>(own.columns, stride, plan_, slice, net_.in, nullptr, forward.line, static_cast<T*>(net_.grad_x),
                   group.halos + s * 2 * plan_.width * net_.in);
  }

  // Products over the pixels of the group, added to those of earlier groups: one unit of work is a row of blocks of
  // grad_w2 and grad_w3, or of grad_w1.
  void weight_gradients(const Group& group, int64_t first, int64_t count, int64_t together) const {
    const int64_t pixels = count * blocks_, pace = together * blocks_;
    const E* hidden1 = net_.hidden1 ? kept(net_.hidden1, first, nullptr) : group.hidden1;
    const E* hidden2 = net_.hidden2 ? kept(net_.hidden2, first, nullptr) : group.hidden2;
    constexpr int64_t depth = 8;
    each(hidden_ + in_, [&](int64_t begin, int64_t end) {
      [[maybe_unused]] const typename Engine::Session session;
      alignas(64) E buffer[depth * area];
      for (int64_t p = 0; p < pixels; p += depth) {
        const int64_t some = least(depth, pixels - p);
        const bool more = first > 0 || p > 0;
        const auto row = [&](const E* a, int64_t columns, int64_t m, const E* b, int64_t n, T* to) {
          const typename Engine::Columns left(a + (p * columns + m) * area, columns * area, some, buffer);
          for (int64_t j = 0; j < n; ++j) left.product(b + (j * pace + p) * area, some, to + (m * n + j) * area, more);
        };
        for (int64_t m = begin; m < end; ++m) {
          if (m < hidden_) {
            row(hidden1, hidden_, m, group.grad2, hidden_, group.w2);
            row(hidden2, hidden_, m, group.outputs, out_, group.w3);
          } else {
            row(group.inputs, in_, m - hidden_, group.grad1, hidden_, group.w1);
          }
        }
      }
    });
  }

  // From blocks to the layout of the parameters; bias sums in the order of the slices.
  void write_gradients(const Group& group) const {
    T *w1 = static_cast<T*>(net_.grad_w1), *w2 = static_cast<T*>(net_.grad_w2), *w3 = static_cast<T*>(net_.grad_w3);
    const network::Filter at1 = net_.grad_at1, at3 = net_.grad_at3;
    const int64_t hidden = net_.hidden;
    each(hidden_, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t h = block * side, some = least(side, hidden - h);
        for (int64_t k = 0; k < hidden;
             k += side)  // row by row: lines `hidden` numbers apart share a few sets of a cache
          for (int64_t i = 0; i < some; ++i)
            spread(group.w2 + ((k / side) * hidden_ + block) * area + i, side, w2 + (h + i) * hidden + k, 1,
                   least(side, hidden - k));
        for (int64_t tap = 0; tap < 9; ++tap) {
          for (int64_t c = 0, k = tap * net_.in; c < net_.in; ++c, ++k)
            spread(group.w1 + ((k / side) * hidden_ + block) * area + k % side * side, 1,
                   w1 + h * at1.out + c * at1.in + at1.tap(tap), at1.out, some);
          for (int64_t o = 0, k = tap * net_.out; o < net_.out; ++o, ++k)
            spread(group.w3 + (block * out_ + k / side) * area + k % side, side,
                   w3 + h * at3.in + o * at3.out + at3.tap(8 - tap), at3.in, some);
        }
      }
    });
    write_sums(group.b1, hidden_ * side, hidden, net_.grad_b1);
    write_sums(group.b2, hidden_ * side, hidden, net_.grad_b2);
    write_sums(group.b3, net_.out, net_.out, net_.grad_b3);
  }

  static HK_INLINE void spread(const T* from, int64_t step, T* to, int64_t pace, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i * pace] = from[i * step];
  }

  void write_sums(const T* partial, int64_t stride, int64_t count, void* to) const {
    for (int64_t i = 0; i < count; ++i) {
      double total = 0;
      for (int64_t s = 0; s < plan_.count; ++s) total += partial[s * stride + i];
      static_cast<T*>(to)[i] = static_cast<T>(total);
    }
  }
};

}  // namespace hk::HK_ISA
