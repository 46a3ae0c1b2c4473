// paired_conv1x1: the channels of two halves, mixed by one matrix; forward and backward. Contract: hybridkern/ops.
#include <algorithm>
#include <optional>
#include <tuple>

#include "../check.h"
#include "../cpu/operand.h"

namespace hk {
namespace {

using Optional = std::optional<Tensor>;

constexpr int64_t pixels_per_block = 128;
// Partial sums of the weight gradient; a function of the shape alone, as sums must not depend on the threads.
constexpr int64_t blocks_per_sum = 4, most_sums = 32;

struct Halves {
  RowOrder order;
  Operand first, second;

  Halves(const Tensor& first_, const Tensor& second_)
      : order{extent_of(first_), true}, first(operand(first_, order)), second(operand(second_, order)) {}
  int64_t channels() const { return order.extent.channels; }
  int64_t blocks() const { return (order.extent.pixels + pixels_per_block - 1) / pixels_per_block; }
};

// The matrix as the kernels read it: output vectors of both halves beside each other, input by input.
template <class T>
struct Packed {
  std::vector<T> weight, bias;

  template <class At>
  Packed(int64_t channels, const At& at, const T* offset) {
    const int64_t lanes = kernels<T>().lanes, tiles = (channels + lanes - 1) / lanes;
    weight.assign(tiles * 4 * channels * lanes, T(0));
    bias.assign(tiles * 2 * lanes, T(0));
    T* to = weight.data();
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t filled = std::min(lanes, channels - tile * lanes);
      for (int64_t i = 0; i < 2 * channels; ++i)
        for (int64_t half = 0; half < 2; ++half, to += lanes)
          for (int64_t k = 0; k < filled; ++k) to[k] = at(half * channels + tile * lanes + k, i);
      for (int64_t half = 0; offset && half < 2; ++half)
        std::copy_n(offset + half * channels + tile * lanes, filled, &bias[(2 * tile + half) * lanes]);
    }
  }
};

// Room for the blocks of one thread: pixels of a half, and what whole vectors overrun.
template <class T>
struct Scratch {
  int64_t size;
  std::vector<T> memory;
  Scratch(int64_t channels, int64_t buffers)
      : size(pixels_per_block * channels + max_lanes), memory(size * buffers, T(0)) {}
  T* at(int64_t buffer) { return memory.data() + buffer * size; }
};

template <class T>
void mix_block(const Packed<T>& packed, const T* first, const T* second, const Halves& to, int64_t b, int64_t pixel,
               int64_t n, Scratch<T>& scratch, int64_t buffer) {
  const int64_t c = to.channels();
  T *out_first = scratch.at(buffer), *out_second = scratch.at(buffer + 1);
  kernels<T>().paired_forward({first, second, packed.weight.data(), packed.bias.data(), out_first, out_second, c, n});
  send_block(to.first, to.order, b, pixel * c, n * c, out_first);
  send_block(to.second, to.order, b, pixel * c, n * c, out_second);
}

template <class T>
void forward(const Halves& in, const Halves& out, int64_t rows, const Tensor& weight, const Optional& bias) {
  const int64_t c = in.channels(), blocks = in.blocks();
  const T* matrix = static_cast<const T*>(weight.const_data_ptr());
  const Packed<T> packed(
      c, [&](int64_t o, int64_t i) { return matrix[o * 2 * c + i]; },
      bias ? static_cast<const T*>(bias->const_data_ptr()) : nullptr);
  const int64_t grain = grain_of(std::min(in.order.extent.pixels, pixels_per_block) * c * c);
  torch::stable::parallel_for(0, rows * blocks, grain, [&](int64_t begin, int64_t end) {
    Scratch<T> scratch(c, 4);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t b = unit / blocks, pixel = unit % blocks * pixels_per_block;
      const int64_t n = std::min(pixels_per_block, in.order.extent.pixels - pixel);
      const T* first = read_block(in.first, in.order, b, pixel * c, n * c, scratch.at(0));
      const T* second = read_block(in.second, in.order, b, pixel * c, n * c, scratch.at(1));
      mix_block(packed, first, second, out, b, pixel, n, scratch, 2);
    }
  });
}

template <class T>
void backward(const Halves& grad, const Halves& in, const Halves& out, int64_t rows, const Tensor& weight,
              Tensor& grad_weight, Tensor& grad_bias) {
  const int64_t c = in.channels(), blocks = in.blocks(), units = rows * blocks;
  const T* matrix = static_cast<const T*>(weight.const_data_ptr());
  const Packed<T> packed(c, [&](int64_t o, int64_t i) { return matrix[i * 2 * c + o]; }, nullptr);
  const int64_t lanes = kernels<T>().lanes, padded = (c + lanes - 1) / lanes * lanes;
  const int64_t size = (2 * c + 1) * 2 * padded;
  const int64_t groups = std::clamp((units + blocks_per_sum - 1) / blocks_per_sum, int64_t(1), most_sums);
  std::vector<double> totals(groups * size, 0.0);
  const int64_t grain = grain_of(std::min(in.order.extent.pixels, pixels_per_block) * c * c * 2 * (units / groups + 1));
  torch::stable::parallel_for(0, groups, grain, [&](int64_t begin, int64_t end) {
    Scratch<T> scratch(c, 6);
    std::vector<T> sums(size);
    for (int64_t group = begin; group < end; ++group) {
      double* total = totals.data() + group * size;
      for (int64_t unit = units * group / groups; unit < units * (group + 1) / groups; ++unit) {
        const int64_t b = unit / blocks, pixel = unit % blocks * pixels_per_block, i = pixel * c;
        const int64_t n = std::min(pixels_per_block, in.order.extent.pixels - pixel);
        const T* first = read_block(in.first, in.order, b, i, n * c, scratch.at(0));
        const T* second = read_block(in.second, in.order, b, i, n * c, scratch.at(1));
        copy_block(grad.first, grad.order, b, i, n * c, scratch.at(2));
        copy_block(grad.second, grad.order, b, i, n * c, scratch.at(3));
        mix_block(packed, scratch.at(2), scratch.at(3), out, b, pixel, n, scratch, 4);
        kernels<T>().paired_weight_gradient({first, second, scratch.at(2), scratch.at(3), sums.data(), c, n});
        for (int64_t k = 0; k < size; ++k) total[k] += static_cast<double>(sums[k]);
      }
    }
  });
  for (int64_t group = 1; group < groups; ++group)
    for (int64_t k = 0; k < size; ++k) totals[k] += totals[group * size + k];
  T* to_weight = static_cast<T*>(grad_weight.mutable_data_ptr());
  T* to_bias = static_cast<T*>(grad_bias.mutable_data_ptr());
  for (int64_t o = 0; o < 2 * c; ++o) {
    const double* column = totals.data() + (o < c ? o : padded + o - c);
    for (int64_t i = 0; i < 2 * c; ++i) to_weight[o * 2 * c + i] = static_cast<T>(column[i * 2 * padded]);
    to_bias[o] = static_cast<T>(column[4 * c * padded]);
  }
}

// Weight and bias have the precision that is computed in.
Argument check_halves(const Tensor& first, const Tensor& second, const Tensor& weight) {
  const Argument main = main_argument("first", first, 2), matrix("weight", weight);
  check_like("second", second, main);
  const int64_t channels = 2 * main.sizes[1];
  const ScalarType wanted = is_double(first) ? ScalarType::Double : ScalarType::Float;
  if (matrix.type != wanted) refuse("weight", "dtype " + text_of(matrix.type), text_of(wanted));
  check_device(matrix, main);
  check_shape(matrix, {2, {channels, channels}});
  return matrix;
}

Tensor dense(const Tensor& tensor) { return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor); }

std::tuple<Tensor, Tensor> paired_conv1x1_forward(const Tensor& first, const Tensor& second, const Tensor& weight,
                                                  const Optional& bias) {
  const Argument matrix = check_halves(first, second, weight);
  if (bias) check_exactly("bias", *bias, matrix, {1, {matrix.sizes[0]}});
  Tensor y_first = empty_matching(first), y_second = empty_matching(second);
  if (first.size(1) == 0) return {y_first, y_second};
  const Tensor w = dense(weight);
  const Optional b = bias ? Optional(dense(*bias)) : Optional();
  Writable to_first(y_first), to_second(y_second);
  const Tensor ff = foldable(first), sf = foldable(second);
  const Halves in(ff, sf), out(to_first.tensor, to_second.tensor);
  if (is_double(first))
    forward<double>(in, out, first.size(0), w, b);
  else
    forward<float>(in, out, first.size(0), w, b);
  to_first.finish();
  to_second.finish();
  return {y_first, y_second};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> paired_conv1x1_backward(const Tensor& grad_first, const Tensor& grad_second,
                                                                   const Tensor& first, const Tensor& second,
                                                                   const Tensor& weight) {
  check_halves(first, second, weight);
  const Argument main("first", first);
  check_like("grad_first", grad_first, main);
  check_like("grad_second", grad_second, main);
  Tensor to_first = empty_matching(first), to_second = empty_matching(second), to_weight = empty_shaped_like(weight);
  const int64_t outputs = weight.size(0);
  Tensor to_bias = empty_tensor(&outputs, 1, weight.scalar_type());
  if (outputs == 0) return {to_first, to_second, to_weight, to_bias};
  const Tensor w = dense(weight);
  Writable target_first(to_first), target_second(to_second);
  const Tensor ff = foldable(first), sf = foldable(second), gf = foldable(grad_first), gs = foldable(grad_second);
  const Halves in(ff, sf), grad(gf, gs), out(target_first.tensor, target_second.tensor);
  if (is_double(first))
    backward<double>(grad, in, out, first.size(0), w, to_weight, to_bias);
  else
    backward<float>(grad, in, out, first.size(0), w, to_weight, to_bias);
  target_first.finish();
  target_second.finish();
  return {to_first, to_second, to_weight, to_bias};
}

}  // namespace
}  // namespace hk

STABLE_TORCH_LIBRARY_IMPL(hybridkern, CPU, m) {
  m.impl("paired_conv1x1_forward", TORCH_BOX(&hk::paired_conv1x1_forward));
  m.impl("paired_conv1x1_backward", TORCH_BOX(&hk::paired_conv1x1_backward));
}
