// affine_coupling: forward, backward from the input, backward from the output. Contract: hybridkern/ops.
#include <optional>
#include <tuple>

#include "../cpu/operand.h"
#include "contract.h"
#include "spec.h"

namespace hk {
namespace {

template <class T>
struct CouplingCall {
  CouplingForm<T> form;
  RowOrder order;
  Operand x, a, t;
};

template <class T>
CouplingCall<T> prepare(const Tensor& x, const Tensor& params, int64_t code, const FormNumbers& numbers) {
  CouplingCall<T> call{decode_form<T>(code, numbers.data()), order_of(x), {}, {}, {}};
  call.x = operand(x, call.order);
  split_params(params, call.form, call.order, call.a, call.t);
  return call;
}

template <class T>
void forward(const Tensor& x, const Tensor& params, const std::optional<Tensor>& log_det, Tensor& y,
             Tensor& log_det_out, int64_t code, const FormNumbers& numbers) {
  const CouplingCall<T> call = prepare<T>(x, params, code, numbers);
  const Operand out = operand(y, call.order);
  const auto kernel = kernels<T>().coupling_forward[call.form.map][call.form.negate][call.form.before];
  const int64_t rows = x.size(0), row = call.order.extent.row();
  RowSums sums(rows, blocks_of(row));
  const bool large = beyond_cache<T>(rows * row * (call.form.has_scale() ? 4 : 3));
  for_blocks(rows, row, [&](int64_t b, int64_t k, int64_t i, int64_t n) {
    T buffers[4][block_size];
    CouplingBlock<T> block{};
    block.n = n;
    block.known = read_block(call.x, call.order, b, i, n, buffers[0]);
    block.t = read_block(call.t, call.order, b, i, n, buffers[1]);
    if (call.form.has_scale()) block.a = read_block(call.a, call.order, b, i, n, buffers[2]);
    block.y = block_target(out, b, i, buffers[3]);
    block.stream = large && is_aligned(block.y);
    sums.at(b, k) = kernel(block, call.form);
    write_block(out, call.order, b, i, n, block.y);
  });
  const RowTotals before(log_det);
  write_totals(log_det_out, [&](int64_t b) { return sums.total(b) + before.at(b); });
}

struct Gradients {
  Tensor x, params;
  std::optional<Tensor> recovered;
};

template <class T>
void backward(const Tensor& known, const Tensor& params, const std::optional<Tensor>& grad_y,
              const std::optional<Tensor>& grad_log_det, Gradients& out, int known_kind, int64_t code,
              const FormNumbers& numbers) {
  const CouplingCall<T> call = prepare<T>(known, params, code, numbers);
  Operand grad_a, grad_t, recovered, incoming;
  split_params(out.params, call.form, call.order, grad_a, grad_t);
  const Operand grad_x = operand(out.x, call.order);
  if (out.recovered) recovered = operand(*out.recovered, call.order);
  if (grad_y) incoming = operand(*grad_y, call.order);
  const auto kernel = kernels<T>().coupling_backward[call.form.map][call.form.negate][call.form.before][known_kind];
  const bool shift_read = known_kind == output_recover || (known_kind == from_input) == call.form.before;
  const int64_t tensors = 3 + 3 * (call.form.has_scale() ? 1 : 0) + 1 + shift_read + (known_kind == output_recover);
  const bool large = beyond_cache<T>(known.numel() * tensors);
  const RowTotals grad_log_dets(grad_log_det);
  for_blocks(known.size(0), call.order.extent.row(), [&](int64_t b, int64_t, int64_t i, int64_t n) {
    T buffers[8][block_size];
    CouplingBlock<T> block{};
    block.n = n;
    block.known = read_block(call.x, call.order, b, i, n, buffers[0]);
    if (shift_read) block.t = read_block(call.t, call.order, b, i, n, buffers[1]);
    if (call.form.has_scale()) block.a = read_block(call.a, call.order, b, i, n, buffers[2]);
    if (grad_y) block.grad_y = read_block(incoming, call.order, b, i, n, buffers[3]);
    block.grad_log_det = static_cast<T>(grad_log_dets.at(b));
    block.grad_x = block_target(grad_x, b, i, buffers[4]);
    block.grad_a = block_target(grad_a, b, i, buffers[5]);
    block.grad_t = block_target(grad_t, b, i, buffers[6]);
    block.x = block_target(recovered, b, i, buffers[7]);
    block.stream = large && is_aligned(block.grad_x) && is_aligned(block.grad_a) && is_aligned(block.grad_t) &&
                   is_aligned(block.x);
    kernel(block, call.form);
    write_block(grad_x, call.order, b, i, n, block.grad_x);
    write_block(grad_a, call.order, b, i, n, block.grad_a);
    write_block(grad_t, call.order, b, i, n, block.grad_t);
    write_block(recovered, call.order, b, i, n, block.x);
  });
}

std::tuple<Tensor, Tensor> affine_coupling_forward(const Tensor& x, const Tensor& params,
                                                   const std::optional<Tensor>& log_det, int64_t code,
                                                   const FormNumbers& numbers) {
  check_coupling_forward(x, params, log_det, code, numbers);
  Tensor y = empty_matching(x);
  Tensor log_det_out = empty_totals(x, log_det && is_double(*log_det));
  const Tensor xf = foldable(x), pf = foldable(params);
  Writable out(y);
  if (is_double(x))
    forward<double>(xf, pf, log_det, out.tensor, log_det_out, code, numbers);
  else
    forward<float>(xf, pf, log_det, out.tensor, log_det_out, code, numbers);
  out.finish();
  return {y, log_det_out};
}

Gradients gradients(const Tensor& known, const Tensor& params, const std::optional<Tensor>& grad_y,
                    const std::optional<Tensor>& grad_log_det, KnownKind kind, int64_t code,
                    const FormNumbers& numbers) {
  check_coupling_backward(kind == output_recover ? "y" : "known", known, params, grad_y, grad_log_det, code, numbers);
  Gradients result{empty_matching(known), empty_matching(params), std::nullopt};
  Writable grad_x(result.x), grad_params(result.params);
  std::optional<Writable> recovered;
  if (kind == output_recover) {
    result.recovered = empty_matching(known);
    recovered.emplace(*result.recovered);
  }
  Gradients out{grad_x.tensor, grad_params.tensor, std::nullopt};
  if (recovered) out.recovered = recovered->tensor;
  const Tensor kf = foldable(known), pf = foldable(params);
  std::optional<Tensor> gf;
  if (grad_y) gf = foldable(*grad_y);
  if (is_double(known))
    backward<double>(kf, pf, gf, grad_log_det, out, kind, code, numbers);
  else
    backward<float>(kf, pf, gf, grad_log_det, out, kind, code, numbers);
  grad_x.finish();
  grad_params.finish();
  if (recovered) recovered->finish();
  return result;
}

std::tuple<Tensor, Tensor> affine_coupling_backward(const Tensor& known, const Tensor& params,
                                                    const std::optional<Tensor>& grad_y,
                                                    const std::optional<Tensor>& grad_log_det, int64_t code,
                                                    const FormNumbers& numbers, bool known_is_output) {
  Gradients g =
      gradients(known, params, grad_y, grad_log_det, known_is_output ? from_output : from_input, code, numbers);
  return {g.x, g.params};
}

std::tuple<Tensor, Tensor, Tensor> affine_coupling_backward_from_output(const Tensor& y, const Tensor& params,
                                                                        const std::optional<Tensor>& grad_y,
                                                                        const std::optional<Tensor>& grad_log_det,
                                                                        int64_t code, const FormNumbers& numbers) {
  Gradients g = gradients(y, params, grad_y, grad_log_det, output_recover, code, numbers);
  return {*g.recovered, g.x, g.params};
}

}  // namespace
}  // namespace hk

STABLE_TORCH_LIBRARY_IMPL(hybridkern, CPU, m) {
  m.impl("affine_coupling_forward", TORCH_BOX(&hk::affine_coupling_forward));
  m.impl("affine_coupling_backward", TORCH_BOX(&hk::affine_coupling_backward));
  m.impl("affine_coupling_backward_from_output", TORCH_BOX(&hk::affine_coupling_backward_from_output));
}
