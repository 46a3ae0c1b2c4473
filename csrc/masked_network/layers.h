// The layers of a masked network in the order in which their units are computed, and their matrices with zeros where
// the masks have them.
#pragma once

#include <memory>
#include <type_traits>
#include <vector>

#include "../coupling_network/network.h"
#include "../cpu/kernels.h"
#include "contract.h"

namespace hk::masked {

template <class T>
struct Layer {
  int64_t in, out, in_row, out_row;  // rows of matrices whose columns are inputs, or units
  int64_t skip;                      // the layer whose sums are added; -1: none
  bool activated, added;             // added: to a later layer
  const T *weight, *bias, *mask;     // contiguous
  const int32_t *order, *inputs;     // place to unit, and place to input
  T* matrix;                         // forward [in][out_row], backward [out][in_row]
  T* start;                          // forward: the bias in order, [out_row]
  MaskedRange* seen;                 // by block of units: which blocks of inputs (backward), or inputs (forward)
  MaskedRange* feeds;                // backward: by block of inputs, which units

  int64_t out_blocks() const { return (out + masked_lanes - 1) / masked_lanes; }
  int64_t in_blocks() const { return (in + masked_lanes - 1) / masked_lanes; }
};

// Memory of this thread, 64-byte aligned, that a call finds where the one before it left it: fresh memory would be
// mapped page by page. There are two, for the matrices and for the gradients of a call.
enum class Reused { matrices, gradients };
template <Reused which>
void* reused(size_t bytes) {
  thread_local std::unique_ptr<network::Buffer> memory;
  thread_local size_t size = 0;
  if (size < bytes) {
    size = 0;
    memory = std::make_unique<network::Buffer>();
    memory->allocate(bytes);
    size = bytes;
  }
  return memory->data();
}

template <class T>
class Layers {
 public:
  Layers(const MaskedLists& lists, bool backward);

  const std::vector<Layer<T>>& all() const { return layers_; }
  const Layer<T>& operator[](int64_t i) const { return layers_[i]; }
  int64_t count() const { return static_cast<int64_t>(layers_.size()); }
  int64_t row_total() const;  // of all layers

 private:
  void set_orders();
  void set_matrix(Layer<T>& layer, bool backward);

  std::vector<Tensor> kept_;
  std::vector<Layer<T>> layers_;
  std::vector<int32_t> orders_;
  std::vector<MaskedRange> ranges_;
  // of the layer whose matrix is made
  std::vector<T> rows_;
  std::vector<int32_t> places_;
  std::vector<std::conditional_t<sizeof(T) == 4, int32_t, int64_t>> sees_;
  std::vector<uint8_t> in_order_, touched_;
};

}  // namespace hk::masked
