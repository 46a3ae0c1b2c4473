// lipswish and clipswish: forward, backward, and the backward pass of that. Contract: hybridkern/ops.
#include <optional>
#include <tuple>

#include "../cpu/operand.h"
#include "contract.h"

namespace hk {
namespace {

constexpr double single_scale = 1 / 1.1, pair_scale = 1 / (1.1 * 1.004);

using Optional = std::optional<Tensor>;

// A tensor like x, or the two halves of one with twice the channels.
struct Halves {
  Operand first, second;
  Halves() = default;
  Halves(const Tensor& of, const RowOrder& order, bool paired, int64_t channels)
      : first(operand(of, order)), second(paired ? operand(of, order, 1, channels) : Operand{}) {}
};

struct Call {
  RowOrder order;
  Operand x;
  int64_t rows, channels;
  double b, scale;
  bool paired;
  Call(const Tensor& x_, double b_, bool paired_)
      : order(order_of(x_)),
        x(operand(x_, order)),
        rows(x_.size(0)),
        channels(paired_ ? x_.size(1) : 0),
        b(b_),
        scale(paired_ ? pair_scale : single_scale),
        paired(paired_) {}
  Halves halves(const Tensor& of) const { return Halves(of, order, paired, channels); }

  template <class T>
  LipswishBlock<T> block(int64_t row, int64_t i, int64_t n, T* buffer) const {
    LipswishBlock<T> out{};
    out.n = n;
    out.b = static_cast<T>(b);
    out.scale = static_cast<T>(scale);
    out.x = read_block(x, order, row, i, n, buffer);
    return out;
  }
};

template <class T>
void forward(const Call& call, const Halves& to) {
  for_blocks(call.rows, call.order.extent.row(), [&](int64_t b, int64_t, int64_t i, int64_t n) {
    T buffers[3][block_size];
    LipswishBlock<T> block = call.block<T>(b, i, n, buffers[0]);
    block.out = block_target(to.first, b, i, buffers[1]);
    block.out_pair = block_target(to.second, b, i, buffers[2]);
    kernels<T>().lipswish_forward(block);
    write_block(to.first, call.order, b, i, n, block.out);
    write_block(to.second, call.order, b, i, n, block.out_pair);
  });
}

double summed(const RowSums& sums, int64_t rows) {
  double total = 0;
  for (int64_t b = 0; b < rows; ++b) total += sums.total(b);
  return total;
}

template <class T>
double backward(const Call& call, const Halves& grad, const Operand& to) {
  const int64_t row = call.order.extent.row();
  RowSums sums(call.rows, blocks_of(row));
  for_blocks(call.rows, row, [&](int64_t b, int64_t k, int64_t i, int64_t n) {
    T buffers[4][block_size];
    LipswishBlock<T> block = call.block<T>(b, i, n, buffers[0]);
    block.grad = read_block(grad.first, call.order, b, i, n, buffers[1]);
    if (call.paired) block.grad_pair = read_block(grad.second, call.order, b, i, n, buffers[2]);
    block.out = block_target(to, b, i, buffers[3]);
    sums.at(b, k) = kernels<T>().lipswish_backward(block);
    write_block(to, call.order, b, i, n, block.out);
  });
  return summed(sums, call.rows);
}

struct Outer {
  Operand x;  // absent: zero
  double b;
};

template <class T>
double double_backward(const Call& call, const Outer& outer, const Halves& grad, const Halves& to_grad,
                       const Operand& to) {
  const int64_t row = call.order.extent.row();
  RowSums sums(call.rows, blocks_of(row));
  for_blocks(call.rows, row, [&](int64_t b, int64_t k, int64_t i, int64_t n) {
    T buffers[7][block_size];
    LipswishBlock<T> block = call.block<T>(b, i, n, buffers[0]);
    block.grad = read_block(grad.first, call.order, b, i, n, buffers[1]);
    if (call.paired) block.grad_pair = read_block(grad.second, call.order, b, i, n, buffers[2]);
    if (outer.x.present()) block.outer = read_block(outer.x, call.order, b, i, n, buffers[3]);
    block.outer_b = static_cast<T>(outer.b);
    block.to_grad = block_target(to_grad.first, b, i, buffers[4]);
    block.to_grad_pair = block_target(to_grad.second, b, i, buffers[5]);
    block.out = block_target(to, b, i, buffers[6]);
    sums.at(b, k) = kernels<T>().lipswish_double_backward(block);
    write_block(to_grad.first, call.order, b, i, n, block.to_grad);
    write_block(to_grad.second, call.order, b, i, n, block.to_grad_pair);
    write_block(to, call.order, b, i, n, block.out);
  });
  return summed(sums, call.rows);
}

// Of the shape of the outputs, laid out like x.
Tensor empty_output(const Tensor& x, bool paired) {
  if (!paired) return empty_matching(x);
  std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
  sizes[1] *= 2;
  if (x.dim() == 4 && x.size(1) > 1 && x.stride(1) == 1)
    return empty_channels_last({sizes[0], sizes[1], sizes[2], sizes[3]}, x.scalar_type());
  return empty_tensor(sizes.data(), x.dim(), x.scalar_type());
}

Tensor lipswish_forward(const Tensor& x, const Tensor& b, bool paired) {
  check_lipswish(x, b, paired);
  Tensor y = empty_output(x, paired);
  Writable out(y);
  const Tensor xf = foldable(x);
  const Call call(xf, value_of(b), paired);
  const Halves to = call.halves(out.tensor);
  is_double(x) ? forward<double>(call, to) : forward<float>(call, to);
  out.finish();
  return y;
}

std::tuple<Tensor, Tensor> lipswish_backward(const Tensor& grad, const Tensor& x, const Tensor& b, bool paired) {
  check_lipswish_grad(grad, check_lipswish(x, b, paired), paired);
  Tensor grad_x = empty_matching(x), grad_b = empty_shaped_like(b);
  Writable out(grad_x);
  const Tensor xf = foldable(x), gf = foldable(grad);
  const Call call(xf, value_of(b), paired);
  const Halves from = call.halves(gf);
  const Operand to = operand(out.tensor, call.order);
  set_value(grad_b, is_double(x) ? backward<double>(call, from, to) : backward<float>(call, from, to));
  out.finish();
  return {grad_x, grad_b};
}

std::tuple<Tensor, Tensor, Tensor> lipswish_double_backward(const Optional& outer_x, const Optional& outer_b,
                                                            const Tensor& grad, const Tensor& x, const Tensor& b,
                                                            bool paired) {
  const Argument main = check_lipswish(x, b, paired);
  check_lipswish_grad(grad, main, paired);
  if (outer_x) check_like("outer_x", *outer_x, main);
  if (outer_b) check_one_element("outer_b", *outer_b, main);
  Tensor to_grad = empty_output(x, paired), to_x = empty_matching(x), to_b = empty_shaped_like(b);
  Writable out_grad(to_grad), out_x(to_x);
  const Tensor xf = foldable(x), gf = foldable(grad);
  const Optional of = outer_x ? Optional(foldable(*outer_x)) : Optional();
  const Call call(xf, value_of(b), paired);
  const Outer outer{of ? operand(*of, call.order) : Operand{}, outer_b ? value_of(*outer_b) : 0.0};
  const Halves from = call.halves(gf), to = call.halves(out_grad.tensor);
  const Operand target = operand(out_x.tensor, call.order);
  set_value(to_b, is_double(x) ? double_backward<double>(call, outer, from, to, target)
                               : double_backward<float>(call, outer, from, to, target));
  out_grad.finish();
  out_x.finish();
  return {to_grad, to_x, to_b};
}

}  // namespace
}  // namespace hk

STABLE_TORCH_LIBRARY_IMPL(hybridkern, CPU, m) {
  m.impl("lipswish_forward", TORCH_BOX(&hk::lipswish_forward));
  m.impl("lipswish_backward", TORCH_BOX(&hk::lipswish_backward));
  m.impl("lipswish_double_backward", TORCH_BOX(&hk::lipswish_double_backward));
}
