// What a call launches: how its rows are walked, and which instantiation of a kernel can do it.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "runtime.h"
// after the shim, which stands in for the CUDA language
#include "rows.cuh"

namespace hk::cuda {

constexpr int64_t most_blocks = INT32_MAX;   // of a grid
constexpr int64_t worthwhile_blocks = 1024;  // a few for every multiprocessor of the largest GPUs
constexpr int64_t vectors_of_a_thread = 4;   // in a chunk, where rows are cut

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int power_of_two_from(int64_t least, int64_t most) {
  int p = 1;
  while (p < least && p < most) p *= 2;
  return p;
}

inline View view_of(const Operand& o, const RowOrder& order) {
  if (!o.present()) return {};
  const bool major = order.pixel_major;
  return {o.data, o.batch_stride, major ? o.pixel_stride : o.channel_stride, major ? o.channel_stride : o.pixel_stride,
          o.element};
}
inline Totals totals_of(const Tensor& tensor) {
  return {static_cast<char*>(const_cast<void*>(tensor.const_data_ptr())), tensor.dim() > 0 ? tensor.stride(0) : 0,
          element_of(tensor)};
}
inline Totals totals_of(const std::optional<Tensor>& tensor) { return tensor ? totals_of(*tensor) : Totals{}; }

// The operands of a call, their element types, and the walk over them.
class Plan {
 public:
  // Types of x and of the parameters: empty tensors have them without having data.
  Plan(int64_t rows, const RowOrder& order, const Tensor& x, const Tensor& param)
      : order_(order), x_(element_of(x)), p_(element_of(param)) {
    const auto [channels, pixels] = order.extent;
    walk_.rows = rows;
    walk_.row = channels * pixels;
    walk_.inner = order.pixel_major ? channels : pixels;
  }

  const RowOrder& order() const { return order_; }
  const Walk& walk() const { return walk_; }
  int64_t units() const { return walk_.rows * walk_.chunks; }
  bool vectors() const { return vectors_; }

  // Registers an operand of the type of x, or of the parameters. Absent operands are left out.
  void data(View& view, const Operand& o) { add(view, o, x_); }
  void param(View& view, const Operand& o) { add(view, o, p_); }

  // Called once all operands are in: merges runs, and rows where no sum keeps them apart; then cuts rows into chunks.
  void finish(bool sums, bool merge_rows) {
    if (std::all_of(views_.begin(), views_.begin() + count_, [&](const Entry& v) { return v.dense; })) {
      walk_.inner = walk_.row;
      for (int i = 0; i < count_; ++i) views_[i].view->step = 1;
      if (merge_rows) merge();
    }
    // As many elements a thread as 16 bytes of x hold, though parameters may be smaller: with twice as many, each
    // access of a warp to x would touch every other 16 bytes, and all sectors twice.
    vector_ = 16 / size_of(x_);
    vectors_ = uniform_ && type_pair_exists() && aligned();
    const int64_t n = vectors_ ? vector_ : 1, vectors = std::max<int64_t>(1, ceil_div(walk_.row, n));
    walk_.lanes = vectors <= 4 * warp_threads ? power_of_two_from(vectors, warp_threads) : block_threads;
    const int64_t least = block_threads * vectors_of_a_thread;
    int64_t chunks = 1;
    if (walk_.lanes == block_threads) {
      chunks = ceil_div(vectors, least);
      // a sum over one chunk is finished in the same launch
      if (sums)
        chunks = walk_.rows >= worthwhile_blocks / 2
                     ? 1
                     : std::min(chunks, ceil_div(worthwhile_blocks, std::max<int64_t>(1, walk_.rows)));
    }
    const int64_t chunk_vectors =
        chunks == 1 ? vectors : ceil_div(ceil_div(vectors, chunks), block_threads) * block_threads;
    walk_.chunk = chunk_vectors * n;
    walk_.chunks = std::max<int64_t>(1, ceil_div(walk_.row, walk_.chunk));
  }

  unsigned blocks(int64_t most = most_blocks) const {
    return static_cast<unsigned>(std::min(most, std::max<int64_t>(1, ceil_div(units(), block_threads / walk_.lanes))));
  }

  // Calls f.operator()<X, P, N>() with the instantiation for these operands.
  template <class F>
  void dispatch(F&& f) const {
    if (!vectors_)
      return x_ == Element::f64 ? f.template operator()<Any<double>, Any<double>, 1>()
                                : f.template operator()<Any<float>, Any<float>, 1>();
    if (x_ == Element::f64) return f.template operator()<double, double, 2>();
    if (x_ == Element::bf16) return f.template operator()<Bf16, Bf16, 8>();
    if (x_ == Element::f16) return f.template operator()<F16, F16, 8>();
    if (p_ == Element::bf16) return f.template operator()<float, Bf16, 4>();
    if (p_ == Element::f16) return f.template operator()<float, F16, 4>();
    return f.template operator()<float, float, 4>();
  }

 private:
  struct Entry {
    View* view;
    bool dense;
  };

  void add(View& view, const Operand& o, Element type) {
    view = view_of(o, order_);
    if (!o.present()) return;
    views_[count_++] = {&view, o.dense};
    uniform_ &= type == o.element;
  }

  // All rows of all operands lie one after another: they are one row.
  void merge() {
    if (walk_.rows <= 1) return;
    for (int i = 0; i < count_; ++i)
      if (views_[i].view->batch != walk_.row) return;
    walk_.row *= walk_.rows;
    walk_.inner = walk_.row;
    walk_.rows = 1;
  }

  bool type_pair_exists() const {
    return x_ == p_ || (x_ == Element::f32 && (p_ == Element::bf16 || p_ == Element::f16));
  }

  bool aligned() const {
    if (walk_.inner % vector_ != 0) return false;
    for (int i = 0; i < count_; ++i) {
      const View& v = *views_[i].view;
      const int64_t size = size_of(v.element), bytes = std::min<int64_t>(16, vector_ * size);
      const bool one_run = walk_.inner == walk_.row;
      if (v.step != 1 || reinterpret_cast<uintptr_t>(v.data) % bytes != 0 || v.batch * size % bytes != 0) return false;
      if (!one_run && v.outer * size % bytes != 0) return false;
    }
    return true;
  }

  RowOrder order_;
  Element x_, p_;
  Walk walk_{};
  std::array<Entry, 8> views_{};
  int count_ = 0, vector_ = 1;
  bool uniform_ = true, vectors_ = false;
};

// A buffer on the device of `like`; the allocator keeps it alive for the work on the current stream.
inline Tensor workspace(const Tensor& like, int64_t elements, ScalarType type) {
  return torch::stable::new_empty(like, {elements}, type);
}

inline void finish_rows(const Tensor& partial, int64_t rows, int64_t chunks, const Totals& start, const Totals& out,
                        double factor) {
  const FinishRows f{static_cast<const double*>(partial.const_data_ptr()), rows, chunks, start, out, factor};
  HK_LAUNCH(hk_finish_rows, static_cast<unsigned>(std::min(rows, most_blocks)), f);
}

inline Tensor empty_shaped_like(const Tensor& tensor) { return torch::stable::new_empty(tensor, tensor.sizes()); }

// A (B,) tensor for totals over the examples of x.
inline Tensor empty_totals(const Tensor& x, bool wide) {
  return torch::stable::new_empty(x, {x.size(0)}, wide ? ScalarType::Double : ScalarType::Float);
}

// A gradient as the kernels want it. Of a plain sum it is one number, expanded: written out, it is read 16 bytes at a
// time like any other, and sums over it run in the same order.
inline Tensor incoming_gradient(const Tensor& grad) {
  for (int64_t d = 0; d < grad.dim(); ++d)
    if (grad.stride(d) == 0 && grad.size(d) > 1) return torch::stable::contiguous(grad);
  return foldable(grad);
}

// An output whose spatial dims may not fold: the kernel then writes a contiguous stand-in, copied over at the end.
class Writable {
 public:
  explicit Writable(const Tensor& target)
      : tensor(folds(target, 2) ? target : empty_shaped_like(target)), target_(target), stands_in_(!folds(target, 2)) {}
  void finish() {
    if (stands_in_) torch::stable::copy_(target_, tensor);
  }

  Tensor tensor;

 private:
  Tensor target_;
  bool stands_in_;
};

}  // namespace hk::cuda
