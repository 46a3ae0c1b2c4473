// Rows of a tensor (layout.h), read and written block by block.
//
// Where an operand lies in row order without gaps and has the working type, blocks are pointers into it; otherwise
// they pass through a small buffer in the L1 cache.
#pragma once

#include <optional>
#include <vector>

#include "../layout.h"
#include "kernels.h"
#include "parallel.h"

namespace hk {

// Whether blocks of the operand are pointers into it.
template <class T>
bool is_direct(const Operand& of) {
  return of.dense && of.element == (sizeof(T) == 8 ? Element::f64 : Element::f32);
}

// Elements [begin, begin + n) of row b into `buffer`.
template <class T>
void copy_block(const Operand& from, const RowOrder& order, int64_t b, int64_t begin, int64_t n, T* buffer);

// The same: a pointer into the tensor, or `buffer` filled. Inline, as the others that are called for every row: rows
// may be short.
template <class T>
const T* read_block(const Operand& from, const RowOrder& order, int64_t b, int64_t begin, int64_t n, T* buffer) {
  if (is_direct<T>(from)) return reinterpret_cast<const T*>(from.data) + b * from.batch_stride + begin;
  copy_block(from, order, b, begin, n, buffer);
  return buffer;
}

// Where element `begin` of row b of a dense operand lies, whether it exists or not: for prefetching only.
inline const char* place_of(const Operand& from, int64_t b, int64_t begin) {
  const int64_t width = from.element == Element::f64 ? 8 : from.element == Element::f32 ? 4 : 2;
  return from.data + (b * from.batch_stride + begin) * width;
}

// Where to write elements [begin, begin + n) of row b: into the tensor, or `buffer`, then to be sent by write_block.
template <class T>
T* block_target(const Operand& to, int64_t b, int64_t begin, T* buffer) {
  if (!to.present()) return nullptr;
  return is_direct<T>(to) ? reinterpret_cast<T*>(to.data) + b * to.batch_stride + begin : buffer;
}

// Writes the block wherever it lies; write_block does so only if it lies in a buffer.
template <class T>
void send_block(const Operand& to, const RowOrder& order, int64_t b, int64_t begin, int64_t n, const T* from);

template <class T>
void write_block(const Operand& to, const RowOrder& order, int64_t b, int64_t begin, int64_t n, const T* from) {
  if (to.present() && !is_direct<T>(to)) send_block(to, order, b, begin, n, from);
}

// Totals in double precision to elements [begin, begin + n) of row 0.
template <class T>
void write_values(const Operand& to, const RowOrder& order, int64_t begin, int64_t n, const double* from) {
  T buffer[block_size];
  if (!to.present()) return;
  T* target = block_target(to, 0, begin, buffer);
  for (int64_t i = 0; i < n; ++i) target[i] = static_cast<T>(from[i]);
  write_block(to, order, 0, begin, n, target);
}

// Blocks of a row, and a grain for parallel_for that gives each thread a worthwhile share.
inline int64_t blocks_of(int64_t row) { return (row + block_size - 1) / block_size; }
inline int64_t grain_of(int64_t elements_per_unit) {
  constexpr int64_t worthwhile = 16384;
  return elements_per_unit >= worthwhile ? 1 : worthwhile / (elements_per_unit > 0 ? elements_per_unit : 1);
}

// Calls body(b, k, i, n) for every block of every row that begins in [begin, end) of all blocks.
template <class F>
void visit_blocks(int64_t begin, int64_t end, int64_t row, const F& body) {
  if (begin == end) return;
  const int64_t blocks = blocks_of(row);
  int64_t b = begin / blocks, k = begin % blocks;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t i = k * block_size;
    body(b, k, i, row - i < block_size ? row - i : block_size);
    if (++k == blocks) ++b, k = 0;
  }
}

// The same for all blocks, in parallel.
template <class F>
void for_blocks(int64_t rows, int64_t row, const F& body) {
  torch::stable::parallel_for(0, rows * blocks_of(row), grain_of(row < block_size ? row : block_size),
                              [&](int64_t begin, int64_t end) { visit_blocks(begin, end, row, body); });
}

template <class F>
void for_blocks_of_density(int64_t rows, int64_t row, const F& body) {
  parallel_for_density(0, rows * blocks_of(row), grain_of(row < block_size ? row : block_size),
                       [&](int64_t begin, int64_t end) { visit_blocks(begin, end, row, body); });
}

// New tensors on the CPU. The C function behind them costs a fraction of a call through the dispatcher.
Tensor empty_tensor(const int64_t* sizes, int64_t dims, ScalarType type);

// (B, C, H, W) with the channels innermost.
Tensor empty_channels_last(const int64_t (&sizes)[4], ScalarType type);

// As torch.empty_like: the strides of a dense tensor are kept.
Tensor empty_matching(const Tensor& tensor);

// Contiguous.
inline Tensor empty_shaped_like(const Tensor& tensor) {
  return empty_tensor(tensor.sizes().data(), tensor.dim(), tensor.scalar_type());
}

// A (B,) tensor for totals over the examples of x.
inline Tensor empty_totals(const Tensor& x, bool wide = false) {
  const int64_t rows = x.size(0);
  return empty_tensor(&rows, 1, wide || is_double(x) ? ScalarType::Double : ScalarType::Float);
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

// Half the processor's last cache: what a call may fill and still find there afterwards.
int64_t cache_share();

// Outputs of a call that touches more memory than that are written past the cache: reading their lines first would cost
// a third of the traffic, and few of them would be left for the next reader.
template <class T>
bool beyond_cache(int64_t elements) {
  return elements * static_cast<int64_t>(sizeof(T)) > cache_share();
}

template <class T>
bool is_aligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % 64 == 0;
}

// Totals of the rows: per-block sums in a fixed order, whatever thread made them.
class RowSums {
 public:
  RowSums(int64_t rows, int64_t blocks) : blocks_(blocks), sums_(rows * blocks) {}
  double& at(int64_t row, int64_t block) { return sums_[row * blocks_ + block]; }
  double total(int64_t row) const {
    double sum = 0;
    for (int64_t k = 0; k < blocks_; ++k) sum += sums_[row * blocks_ + k];
    return sum;
  }

 private:
  int64_t blocks_;
  std::vector<double> sums_;
};

// The number that a tensor of one element holds, and its place to write to.
double value_of(const Tensor& one_element);
void set_value(Tensor& one_element, double value);

// Writes `value(row)` for every row into a (B,) tensor of float32 or float64.
template <class F>
void write_totals(Tensor& out, const F& value) {
  const int64_t rows = out.size(0);
  if (is_double(out)) {
    double* p = static_cast<double*>(out.mutable_data_ptr());
    for (int64_t b = 0; b < rows; ++b) p[b] = value(b);
  } else {
    float* p = static_cast<float*>(out.mutable_data_ptr());
    for (int64_t b = 0; b < rows; ++b) p[b] = static_cast<float>(value(b));
  }
}

// A (B,) tensor of float32 or float64 and any stride, or none, which is zero. Made once a call: what it asks the tensor
// takes as long as a short row.
class RowTotals {
 public:
  explicit RowTotals(const Tensor& totals)
      : data_(totals.const_data_ptr()), stride_(totals.stride(0)), wide_(is_double(totals)) {}
  explicit RowTotals(const std::optional<Tensor>& totals) {
    if (totals) *this = RowTotals(*totals);
  }
  double at(int64_t b) const {
    if (data_ == nullptr) return 0.0;
    return wide_ ? static_cast<const double*>(data_)[b * stride_] : static_cast<const float*>(data_)[b * stride_];
  }

 private:
  const void* data_ = nullptr;
  int64_t stride_ = 0;
  bool wide_ = false;
};

}  // namespace hk
