// Tensors of any dtype and layout as rows of elements.
//
// A tensor (B, C, *S) is seen as (B, C, S) with three strides, S being the spatial dims folded into one. A row is one
// example; its elements are numbered in an order that suits the memory of the main operand: channel by channel, or
// pixel by pixel for channels_last.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>

#include "element.h"

namespace hk {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t most_dims = 64;  // of a tensor that the kernels take

Element element_of(const Tensor& tensor);

inline bool is_double(const Tensor& tensor) { return tensor.scalar_type() == ScalarType::Double; }

struct Extent {
  int64_t channels = 1, pixels = 1;
  int64_t row() const { return channels * pixels; }
};

struct Operand {
  char* data = nullptr;
  Element element = Element::f32;
  int64_t batch_stride = 0, channel_stride = 0, pixel_stride = 0;  // in elements; 0 where broadcast
  bool dense = false;                                              // in row order without gaps

  bool present() const { return data != nullptr; }
};

// How rows of one operator call are numbered.
struct RowOrder {
  Extent extent;
  bool pixel_major = false;
};

// Whether dims [first, end) fold into one stride.
bool folds(const Tensor& tensor, int64_t first);

// The tensor itself if its spatial dims (from dim `first` on) fold, else a contiguous copy.
Tensor foldable(const Tensor& tensor, int64_t first = 2);

// (C, S) of a tensor whose channel dim is `channel_dim`; missing dims count 1.
Extent extent_of(const Tensor& tensor, int64_t channel_dim = 1);

RowOrder order_of(const Tensor& tensor);

// Every `channel_step`-th channel of the tensor from `first_channel` on. A batch of one gets stride 0.
Operand operand(const Tensor& tensor, const RowOrder& order, int64_t channel_dim = 1, int64_t first_channel = 0,
                int64_t channel_step = 1);

// Whether a parameter is shared by a batch of `rows`.
inline bool is_shared(const Tensor& param, int64_t rows) { return param.size(0) == 1 && rows != 1; }

}  // namespace hk
