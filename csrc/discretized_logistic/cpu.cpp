// discretized_logistic: forward and backward. Contract: hybridkern/ops.
#include <algorithm>
#include <tuple>

#include "../cpu/operand.h"
#include "../cpu/shared_gradients.h"
#include "bin.h"
#include "contract.h"

namespace hk {
namespace {

struct Inputs {
  RowOrder order;
  Operand x, mean, log_scale;
  Inputs(const Tensor& x_, const Tensor& mean_, const Tensor& log_scale_)
      : order(order_of(x_)),
        x(operand(x_, order)),
        mean(operand(mean_, order)),
        log_scale(operand(log_scale_, order)) {}

  template <class T>
  LogisticBlock<T> block(int64_t b, int64_t i, int64_t n, T (*buffers)[block_size]) const {
    LogisticBlock<T> out{};
    out.n = n;
    out.x = read_block(x, order, b, i, n, buffers[0]);
    out.mean = read_block(mean, order, b, i, n, buffers[1]);
    out.log_scale = read_block(log_scale, order, b, i, n, buffers[2]);
    return out;
  }
};

// Parameters that the batch shares: what depends on them alone is computed once a call, in row order.
template <class T>
class Prepared {
 public:
  Prepared(const Operand& log_scale, const RowOrder& order, const BinConstants<T>& bin, bool shared)
      : stride_(shared ? order.extent.row() : 0), values_(prepared_arrays * stride_) {
    T buffer[block_size];
    for (int64_t i = 0; i < stride_; i += block_size) {
      const int64_t n = std::min(block_size, stride_ - i);
      kernels<T>().logistic_prepare(read_block(log_scale, order, 0, i, n, buffer), values_.data() + i, stride_, n, bin);
    }
  }
  void give(LogisticBlock<T>& block, int64_t i) const {
    block.prepared = stride_ ? values_.data() + i : nullptr;
    block.stride = stride_;
  }

 private:
  int64_t stride_;
  std::vector<T> values_;
};

template <class T>
void forward(const Tensor& x, const Tensor& mean, const Tensor& log_scale, double width, bool reduce, Tensor& out) {
  const Inputs in(x, mean, log_scale);
  const BinConstants<T> bin = bin_constants<T>(width);
  const Operand to = reduce ? Operand{} : operand(out, in.order);
  const int64_t rows = x.size(0), row = in.order.extent.row();
  const Prepared<T> prepared(in.log_scale, in.order, bin, is_shared(mean, rows));
  RowSums sums(rows, blocks_of(row));
  for_blocks_of_density(rows, row, [&](int64_t b, int64_t k, int64_t i, int64_t n) {
    T buffers[4][block_size];
    LogisticBlock<T> block = in.block<T>(b, i, n, buffers);
    prepared.give(block, i);
    block.out = block_target(to, b, i, buffers[3]);
    sums.at(b, k) = kernels<T>().logistic_forward(block, bin);
    write_block(to, in.order, b, i, n, block.out);
  });
  if (reduce) write_totals(out, [&](int64_t b) { return sums.total(b); });
}

template <class T>
struct Backward {
  const Inputs in;
  const BinConstants<T> bin;
  const RowTotals grad_totals;  // of the gradient, where `reduce`
  const bool reduce, shared;
  const Prepared<T> prepared;
  const Operand incoming, grad_x, grad_mean, grad_log_scale;

  Backward(const Tensor& grad_, const Tensor& x, const Tensor& mean, const Tensor& log_scale, double width,
           bool reduce_, Tensor& gx, Tensor& gm, Tensor& gs)
      : in(x, mean, log_scale),
        bin(bin_constants<T>(width)),
        grad_totals(grad_),
        reduce(reduce_),
        shared(is_shared(mean, x.size(0))),
        prepared(in.log_scale, in.order, bin, shared),
        incoming(reduce_ ? Operand{} : operand(grad_, in.order)),
        grad_x(operand(gx, in.order)),
        grad_mean(operand(gm, in.order)),
        grad_log_scale(operand(gs, in.order)) {}

  // Columns [i, i + n) of row b; the parameters' gradients go to `to_mean` and `to_log_scale`.
  void step(int64_t b, int64_t i, int64_t n, T (*buffers)[block_size], T* to_mean, T* to_log_scale) const {
    LogisticBlock<T> block = in.block<T>(b, i, n, buffers);
    prepared.give(block, i);
    if (reduce)
      block.grad_each = static_cast<T>(grad_totals.at(b));
    else
      block.grad = read_block(incoming, in.order, b, i, n, buffers[3]);
    block.grad_x = block_target(grad_x, b, i, buffers[4]);
    block.grad_mean = to_mean;
    block.grad_log_scale = to_log_scale;
    block.accumulate = shared;
    kernels<T>().logistic_backward(block, bin);
    write_block(grad_x, in.order, b, i, n, block.grad_x);
  }

  void run(int64_t rows) const {
    const int64_t row = in.order.extent.row();
    if (!shared) {
      for_blocks_of_density(rows, row, [&](int64_t b, int64_t, int64_t i, int64_t n) {
        T buffers[7][block_size];
        T* to_mean = block_target(grad_mean, b, i, buffers[5]);
        T* to_log_scale = block_target(grad_log_scale, b, i, buffers[6]);
        step(b, i, n, buffers, to_mean, to_log_scale);
        write_block(grad_mean, in.order, b, i, n, to_mean);
        write_block(grad_log_scale, in.order, b, i, n, to_log_scale);
      });
      return;
    }
    sum_over_batch<T>(
        rows, row, 2,
        [&](int64_t b, int64_t i, int64_t n, T* sums) {
          T buffers[5][block_size];
          step(b, i, n, buffers, sums, sums + tile_columns);
        },
        [&](int64_t array, int64_t i, int64_t n, const double* totals) {
          write_values<T>(array == 0 ? grad_mean : grad_log_scale, in.order, i, n, totals);
        });
  }
};

Tensor discretized_logistic_forward(const Tensor& x, const Tensor& mean, const Tensor& log_scale, double bin_width,
                                    bool reduce) {
  check_logistic(main_argument("x", x, 1), mean, log_scale, bin_width);
  Tensor result = reduce ? empty_totals(x) : empty_matching(x);
  Writable out(result);
  const Tensor xf = foldable(x), mf = foldable(mean), sf = foldable(log_scale);
  if (is_double(x))
    forward<double>(xf, mf, sf, bin_width, reduce, out.tensor);
  else
    forward<float>(xf, mf, sf, bin_width, reduce, out.tensor);
  out.finish();
  return result;
}

std::tuple<Tensor, Tensor, Tensor> discretized_logistic_backward(const Tensor& grad, const Tensor& x,
                                                                 const Tensor& mean, const Tensor& log_scale,
                                                                 double bin_width, bool reduce) {
  const Argument main = main_argument("x", x, 1);
  check_logistic(main, mean, log_scale, bin_width);
  check_density_grad(grad, main, reduce);
  Tensor grad_x = empty_matching(x);
  Tensor grad_mean = empty_shaped_like(mean);
  Tensor grad_log_scale = empty_shaped_like(log_scale);
  Writable out(grad_x);
  const Tensor gf = reduce ? grad : foldable(grad), xf = foldable(x), mf = foldable(mean), sf = foldable(log_scale);
  if (is_double(x))
    Backward<double>(gf, xf, mf, sf, bin_width, reduce, out.tensor, grad_mean, grad_log_scale).run(x.size(0));
  else
    Backward<float>(gf, xf, mf, sf, bin_width, reduce, out.tensor, grad_mean, grad_log_scale).run(x.size(0));
  out.finish();
  return {grad_x, grad_mean, grad_log_scale};
}

}  // namespace
}  // namespace hk

STABLE_TORCH_LIBRARY_IMPL(hybridkern, CPU, m) {
  m.impl("discretized_logistic_forward", TORCH_BOX(&hk::discretized_logistic_forward));
  m.impl("discretized_logistic_backward", TORCH_BOX(&hk::discretized_logistic_backward));
}
