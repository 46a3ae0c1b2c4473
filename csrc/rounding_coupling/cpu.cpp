// rounding_coupling: forward and backward. Contract: hybridkern/ops.
#include <optional>
#include <tuple>

#include "../cpu/operand.h"
#include "contract.h"

namespace hk {
namespace {

template <class T>
void forward(const Tensor& x, const Tensor& t, T beta, T sign, Tensor& y) {
  const RowOrder order = order_of(x);
  const Operand from = operand(x, order), shift = operand(t, order), to = operand(y, order);
  const auto kernel = kernels<T>().rounding_forward;
  const bool large = beyond_cache<T>(3 * x.size(0) * order.extent.row());
  for_blocks(x.size(0), order.extent.row(), [&](int64_t b, int64_t, int64_t i, int64_t n) {
    T buffers[3][block_size];
    const T* px = read_block(from, order, b, i, n, buffers[0]);
    const T* pt = read_block(shift, order, b, i, n, buffers[1]);
    T* py = block_target(to, b, i, buffers[2]);
    kernel(px, pt, beta, sign, py, large && is_aligned(py), n);
    write_block(to, order, b, i, n, py);
  });
}

template <class T>
double backward(const Tensor& grad, const Tensor& t, T beta, T sign, Tensor& grad_t) {
  const RowOrder order = order_of(t);
  const Operand incoming = operand(grad, order), shift = operand(t, order), to = operand(grad_t, order);
  const auto kernel = kernels<T>().rounding_backward;
  const int64_t rows = t.size(0), row = order.extent.row();
  const bool large = beyond_cache<T>(3 * rows * row);
  RowSums sums(rows, blocks_of(row));
  for_blocks(rows, row, [&](int64_t b, int64_t k, int64_t i, int64_t n) {
    T buffers[3][block_size];
    const T* pg = read_block(incoming, order, b, i, n, buffers[0]);
    const T* pt = read_block(shift, order, b, i, n, buffers[1]);
    T* pr = block_target(to, b, i, buffers[2]);
    sums.at(b, k) = kernel(pg, pt, sign * beta, pr, large && is_aligned(pr), n);
    write_block(to, order, b, i, n, pr);
  });
  double total = 0;
  for (int64_t b = 0; b < rows; ++b) total += sums.total(b);
  return sign * total;
}

Tensor rounding_coupling_forward(const Tensor& x, const Tensor& t, const std::optional<Tensor>& beta, bool inverse) {
  check_rounding("x", x, t, beta);
  Tensor y = empty_matching(x);
  Writable out(y);
  const Tensor xf = foldable(x), tf = foldable(t);
  const double factor = beta ? value_of(*beta) : 1.0, sign = inverse ? -1.0 : 1.0;
  if (is_double(x))
    forward<double>(xf, tf, factor, sign, out.tensor);
  else
    forward<float>(xf, tf, static_cast<float>(factor), static_cast<float>(sign), out.tensor);
  out.finish();
  return y;
}

std::tuple<Tensor, Tensor> rounding_coupling_backward(const Tensor& grad, const Tensor& t, const Tensor& beta,
                                                      bool inverse) {
  check_rounding("grad", grad, t, beta);
  Tensor grad_t = empty_matching(t), grad_beta = empty_matching(beta);
  Writable out(grad_t);
  const Tensor gf = foldable(grad), tf = foldable(t);
  const double factor = value_of(beta), sign = inverse ? -1.0 : 1.0;
  const double total = is_double(grad)
                           ? backward<double>(gf, tf, factor, sign, out.tensor)
                           : backward<float>(gf, tf, static_cast<float>(factor), static_cast<float>(sign), out.tensor);
  out.finish();
  set_value(grad_beta, total);
  return {grad_t, grad_beta};
}

}  // namespace
}  // namespace hk

STABLE_TORCH_LIBRARY_IMPL(hybridkern, CPU, m) {
  m.impl("rounding_coupling_forward", TORCH_BOX(&hk::rounding_coupling_forward));
  m.impl("rounding_coupling_backward", TORCH_BOX(&hk::rounding_coupling_backward));
}
