// gaussian_log_prob: forward and backward. Contract: hybridkern/ops.
#include <algorithm>
#include <optional>
#include <tuple>

#include "../cpu/operand.h"
#include "../cpu/shared_gradients.h"
#include "../discretized_logistic/contract.h"

namespace hk {
namespace {

constexpr double half_log_two_pi = 0.91893853320467274178;

using Optional = std::optional<Tensor>;

struct Inputs {
  RowOrder order;
  Operand x, mean, log_scale;  // the latter two absent: zero
  Inputs(const Tensor& x_, const Optional& mean_, const Optional& log_scale_)
      : order(order_of(x_)),
        x(operand(x_, order)),
        mean(mean_ ? operand(*mean_, order) : Operand{}),
        log_scale(log_scale_ ? operand(*log_scale_, order) : Operand{}) {}

  template <class T>
  GaussianBlock<T> block(int64_t b, int64_t i, int64_t n, T (*buffers)[block_size]) const {
    GaussianBlock<T> out{};
    out.n = n;
    out.x = read_block(x, order, b, i, n, buffers[0]);
    if (mean.present()) out.mean = read_block(mean, order, b, i, n, buffers[1]);
    if (log_scale.present()) out.log_scale = read_block(log_scale, order, b, i, n, buffers[2]);
    return out;
  }
};

template <class T>
void forward(const Inputs& in, int64_t rows, Tensor& out) {
  const int64_t row = in.order.extent.row();
  RowSums sums(rows, blocks_of(row));
  for_blocks_of_density(rows, row, [&](int64_t b, int64_t k, int64_t i, int64_t n) {
    T buffers[3][block_size];
    sums.at(b, k) = kernels<T>().gaussian_forward(in.block<T>(b, i, n, buffers));
  });
  const double constant = half_log_two_pi * static_cast<double>(row);
  write_totals(out, [&](int64_t b) { return sums.total(b) - constant; });
}

struct Outputs {
  Operand x, mean, log_scale;
};

template <class T>
void backward(const Tensor& grad, const Inputs& in, const Outputs& out, int64_t rows, bool shared) {
  const int64_t row = in.order.extent.row();
  const RowTotals totals(grad);
  const auto step = [&](int64_t b, int64_t i, int64_t n, T(*buffers)[block_size], T* to_mean, T* to_log_scale) {
    GaussianBlock<T> block = in.block<T>(b, i, n, buffers);
    block.grad_each = static_cast<T>(totals.at(b));
    block.grad_x = block_target(out.x, b, i, buffers[3]);
    block.grad_mean = out.mean.present() ? to_mean : nullptr;
    block.grad_log_scale = out.log_scale.present() ? to_log_scale : nullptr;
    block.accumulate = shared;
    kernels<T>().gaussian_backward(block);
    write_block(out.x, in.order, b, i, n, block.grad_x);
  };
  if (!shared) {
    for_blocks_of_density(rows, row, [&](int64_t b, int64_t, int64_t i, int64_t n) {
      T buffers[6][block_size];
      T* to_mean = block_target(out.mean, b, i, buffers[4]);
      T* to_log_scale = block_target(out.log_scale, b, i, buffers[5]);
      step(b, i, n, buffers, to_mean, to_log_scale);
      write_block(out.mean, in.order, b, i, n, to_mean);
      write_block(out.log_scale, in.order, b, i, n, to_log_scale);
    });
    return;
  }
  sum_over_batch<T>(
      rows, row, 2,
      [&](int64_t b, int64_t i, int64_t n, T* sums) {
        T buffers[4][block_size];
        step(b, i, n, buffers, sums, sums + tile_columns);
      },
      [&](int64_t array, int64_t i, int64_t n, const double* totals) {
        write_values<T>(array == 0 ? out.mean : out.log_scale, in.order, i, n, totals);
      });
}

Optional foldable_if(const Optional& tensor) { return tensor ? Optional(foldable(*tensor)) : Optional(); }

void check_params(const Argument& x, const Optional& mean, const Optional& log_scale) {
  if (mean) check_shared_param(Argument("mean", *mean), x);
  if (log_scale) check_shared_param(Argument("log_scale", *log_scale), x);
  // one of them alone tells whether the batch shares them
  if (mean && log_scale && mean->size(0) != log_scale->size(0))
    check_shape_of(Argument("log_scale", *log_scale), Argument("mean", *mean));
}

Tensor gaussian_log_prob_forward(const Tensor& x, const Optional& mean, const Optional& log_scale) {
  check_params(main_argument("x", x, 1), mean, log_scale);
  Tensor out = empty_totals(x);
  const Tensor xf = foldable(x);
  const Optional mf = foldable_if(mean), sf = foldable_if(log_scale);
  const Inputs in(xf, mf, sf);
  if (is_double(x))
    forward<double>(in, x.size(0), out);
  else
    forward<float>(in, x.size(0), out);
  return out;
}

Tensor empty_gradient(const Tensor& x, const Optional& param) {
  const int64_t none = 0;
  return param ? empty_shaped_like(*param) : empty_tensor(&none, 1, x.scalar_type());
}

std::tuple<Tensor, Tensor, Tensor> gaussian_log_prob_backward(const Tensor& grad, const Tensor& x, const Optional& mean,
                                                              const Optional& log_scale) {
  const Argument main = main_argument("x", x, 1);
  check_params(main, mean, log_scale);
  check_totals("grad", grad, main);
  Tensor grad_x = empty_matching(x);
  Tensor grad_mean = empty_gradient(x, mean), grad_log_scale = empty_gradient(x, log_scale);
  Writable target(grad_x);
  const Tensor xf = foldable(x);
  const Optional mf = foldable_if(mean), sf = foldable_if(log_scale);
  const Inputs in(xf, mf, sf);
  const Outputs out{operand(target.tensor, in.order), mean ? operand(grad_mean, in.order) : Operand{},
                    log_scale ? operand(grad_log_scale, in.order) : Operand{}};
  const int64_t rows = x.size(0);
  const Optional& param = mean ? mean : log_scale;
  const bool shared = param && is_shared(*param, rows);
  if (is_double(x))
    backward<double>(grad, in, out, rows, shared);
  else
    backward<float>(grad, in, out, rows, shared);
  target.finish();
  return {grad_x, grad_mean, grad_log_scale};
}

}  // namespace
}  // namespace hk

STABLE_TORCH_LIBRARY_IMPL(hybridkern, CPU, m) {
  m.impl("gaussian_log_prob_forward", TORCH_BOX(&hk::gaussian_log_prob_forward));
  m.impl("gaussian_log_prob_backward", TORCH_BOX(&hk::gaussian_log_prob_backward));
}
