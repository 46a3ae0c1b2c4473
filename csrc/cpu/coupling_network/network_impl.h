// Forward and backward of the network over an engine (blocks.h); included once by each file of an instruction set.
#pragma once

#include "images.h"

namespace hk::HK_ISA {

using network::Buffer;
using network::Network;

inline int64_t blocks_for(int64_t n) { return (n + side - 1) / side; }

template <class F>
void each(int64_t units, const F& body) {
  network::parallel(
      units, [](void* context, int64_t begin, int64_t end) { (*static_cast<const F*>(context))(begin, end); },
      const_cast<F*>(&body));
}

// Parts of one allocation, each 64-byte aligned.
class Parts {
 public:
  template <class N>
  N* take(int64_t count) {
    N* part = reinterpret_cast<N*>(base_ + used_);
    used_ += (count * static_cast<int64_t>(sizeof(N)) + 63) / 64 * 64;
    return part;
  }
  void place(void* base) { base_ = static_cast<char*>(base), used_ = 0; }
  size_t used() const { return used_; }

 private:
  char* base_ = nullptr;
  size_t used_ = 0;
};

// c(i, j) = sum over k of a(i, k) b(j, k), handed to done(i, j, c) block by block.
template <class Engine, class F>
void products(const typename Engine::E* a, const typename Engine::E* b, int64_t rows, int64_t columns, int64_t depth,
              const F& done) {
  alignas(64) typename Engine::T c[area];
  const auto one = [&](int64_t i, int64_t j) {
    Engine::product(a + i * depth * area, b + j * depth * area, depth, c, false);
    done(i, j, c);
  };
  if (rows >= 8)  // what the inner loop repeats stays in the first-level cache
    for (int64_t j = 0; j < columns; ++j)
      for (int64_t i = 0; i < rows; ++i) one(i, j);
  else
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j) one(i, j);
}

template <class E>
void clear_padding(E* block, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < side; ++r)
    for (int64_t c = r < rows ? columns : 0; c < side; ++c) block[r * side + c] = E{};
}

template <class Engine>
class Run {
  using E = typename Engine::E;
  using T = typename Engine::T;
  using V = Vec<T>;

 public:
  explicit Run(const Network& net)
      : net_(net),
        plan_(net.slices),
        in_(blocks_for(9 * net.in)),
        hidden_(blocks_for(net.hidden)),
        out_(blocks_for(9 * net.out)),
        blocks_(plan_.blocks) {}

  void forward() {
    pack_forward(true);
    const int64_t halo = plan_.bands > 1 ? plan_.count * 2 * plan_.width * net_.out : 0;
    Buffer memory;
    T* halos = static_cast<T*>(memory.allocate(halo * sizeof(T)));
    each(plan_.count, [&](int64_t begin, int64_t end) {
      [[maybe_unused]] const typename Engine::Session session;
      Forward own;
      Parts parts;
      take(parts, own);
      parts.place(network::scratch(parts.used()));
      take(parts, own);
      copy_bias(net_.b3, net_.out, own.bias3);
      for (int64_t s = begin; s < end; ++s) {
        E* hidden1 = kept(net_.hidden1, s, own.hidden1);
        E* hidden2 = kept(net_.hidden2, s, own.hidden2);
        const Slice slice = slice_at(plan_, s);
        hidden_layers(slice, own, hidden1, hidden2);
        const int64_t stride = out_ * side;
        products<Engine>(hidden2, w3_, blocks_, out_, hidden_, [&](int64_t i, int64_t j, const T* c) {
          for (int64_t r = 0; r < side; ++r)
            memcpy(own.columns + (i * side + r) * stride + j * side, c + r * side, side * sizeof(T));
        });
        gather_sums(own.columns, stride, plan_, slice, net_.out, own.bias3, own.line, static_cast<T*>(net_.params),
                    halos + s * 2 * plan_.width * net_.out);
      }
    });
    if (plan_.bands > 1) add_halos<T>(halos, plan_, net_.out, static_cast<T*>(net_.params));
  }

  void backward() {
    pack_forward(false);
    pack_backward();
    const int64_t matrix = blocks_ * area, in_image = plan_.width * net_.in;
    // Slices whose gradients wait for the products over pixels: few enough to stay in the last-level cache.
    constexpr int64_t group_blocks = 128;
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
  // What all threads share during backward; of `together` slices, and sums of all.
  struct Group {
    E *hidden1, *hidden2, *inputs, *outputs, *grad1, *grad2;
    T *w1, *w2, *w3, *b1, *b2, *b3, *halos;
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

  static void copy_bias(const void* from, int64_t count, T* to) {
    memcpy(to, from, count * sizeof(T));
    for (int64_t i = 0; i < slack; ++i) to[count + i] = 0;
  }

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
    const int64_t in = net_.in;
    return filler(net_.hidden, 9 * in, [=](int64_t h, int64_t k) { return w[(h * in + k % in) * 9 + k / in]; });
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
    const int64_t out = net_.out, hidden = net_.hidden;
    return filler(9 * out, hidden, [=](int64_t k, int64_t h) { return w[(k % out * hidden + h) * 9 + 8 - k / out]; });
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
    };
    take_all();
    parts.place(weights_.allocate(parts.used()));
    take_all();
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
    products<Engine>(a, w, blocks_, hidden_, depth, [&](int64_t i, int64_t j, const T* c) {
      constexpr int64_t lanes = Lanes<V>::count;
      E* block = to + (i * hidden_ + j) * area;
      V shift[vectors<T>];
      for (int64_t v = 0; v < vectors<T>; ++v) shift[v] = load<V>(bias + j * side + v * lanes);
      for (int64_t r = 0; r < side; ++r) {
        V row[vectors<T>];
        for (int64_t v = 0; v < vectors<T>; ++v) row[v] = at_least(load<V>(c + r * side + v * lanes) + shift[v], T{0});
        Engine::store_row(block + r * side, row);
      }
      clear(block, i, j, pixels);
    });
  }

  void clear(E* block, int64_t i, int64_t j, int64_t pixels) const {
    const int64_t rows = pixels - i * side, columns = net_.hidden - j * side;
    if (rows < side || columns < side) clear_padding(block, rows, least(side, columns));
  }

  // Gradients before the ReLU: a w where h > 0 (or NaN), row-major to `plain` and as a right operand over pixels to
  // `packed` (blocks of one column of blocks follow each other, `pace` columns apart); adds up its columns in `sums`.
  void masked_layer(const Slice& slice, const E* a, const E* w, int64_t depth, const E* h, E* plain, E* packed,
                    int64_t pace, T* sums) const {
    const int64_t pixels = slice.pixels();
    memset(sums, 0, hidden_ * side * sizeof(T));
    products<Engine>(a, w, blocks_, hidden_, depth, [&](int64_t i, int64_t j, const T* c) {
      constexpr int64_t lanes = Lanes<V>::count;
      const int64_t rows = least(side, pixels - i * side);
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
      clear(block, i, j, pixels);
      Engine::pack(block, packed + (j * pace + i) * area);
    });
  }

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
    products<Engine>(own.grad1, back1_, blocks_, in_, hidden_, [&](int64_t i, int64_t j, const T* c) {
      for (int64_t r = 0; r < side; ++r)
        memcpy(own.columns + (i * side + r) * stride + j * side, c + r * side, side * sizeof(T));
    });
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
    const int64_t in = net_.in, hidden = net_.hidden, out = net_.out;
    T *w1 = static_cast<T*>(net_.grad_w1), *w2 = static_cast<T*>(net_.grad_w2), *w3 = static_cast<T*>(net_.grad_w3);
    const auto at = [](const T* blocks, int64_t columns, int64_t r, int64_t c) {
      return blocks[((r / side) * columns + c / side) * area + (r % side) * side + c % side];
    };
    each(hidden_, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t last = least((block + 1) * side, hidden);
        for (int64_t from = 0; from < hidden; from += side)
          for (int64_t h = block * side; h < last; ++h)
            for (int64_t k = from; k < least(from + side, hidden); ++k)
              w2[h * hidden + k] = at(group.w2, hidden_, k, h);
        for (int64_t h = block * side; h < last; ++h)
          for (int64_t c = 0; c < in; ++c)
            for (int64_t d = 0; d < 9; ++d) w1[(h * in + c) * 9 + d] = at(group.w1, hidden_, d * in + c, h);
        for (int64_t o = 0; o < out; ++o)
          for (int64_t h = block * side; h < last; ++h)
            for (int64_t d = 0; d < 9; ++d) w3[(o * hidden + h) * 9 + 8 - d] = at(group.w3, out_, h, d * out + o);
      }
    });
    write_sums(group.b1, hidden_ * side, hidden, net_.grad_b1);
    write_sums(group.b2, hidden_ * side, hidden, net_.grad_b2);
    write_sums(group.b3, out, out, net_.grad_b3);
  }

  void write_sums(const T* partial, int64_t stride, int64_t count, void* to) const {
    for (int64_t i = 0; i < count; ++i) {
      double total = 0;
      for (int64_t s = 0; s < plan_.count; ++s) total += partial[s * stride + i];
      static_cast<T*>(to)[i] = static_cast<T>(total);
    }
  }

  const Network& net_;
  const Slices& plan_;
  const int64_t in_, hidden_, out_, blocks_;  // blocks of 32
  Buffer weights_, back_;
  E *w1_, *w2_, *w3_, *back1_, *back2_, *back3_;
  T *b1_, *b2_;
};

template <class Engine>
network::Kernels make_network_kernels(const char* name) {
  return {name, [](const Network& net) { Run<Engine>(net).forward(); },
          [](const Network& net) { Run<Engine>(net).backward(); }};
}

}  // namespace hk::HK_ISA
