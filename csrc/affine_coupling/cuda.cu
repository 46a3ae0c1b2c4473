// affine_coupling: forward, backward from the input, backward from the output. Contract: hybridkern/ops.
#include <tuple>

#include "../cuda/plan.h"
#include "contract.h"
#include "spec.h"
// after the shim
#include "cuda.cuh"

namespace hk::cuda {
namespace {

using MaybeTensor = std::optional<Tensor>;

template <class T>
void forward(const Tensor& x, const Tensor& params, const MaybeTensor& log_det, const Tensor& y,
             const Tensor& log_det_out, int64_t code, const FormNumbers& numbers) {
  const RowOrder order = order_of(x);
  const auto form = decode_form<T>(code, numbers.data());
  Plan plan(x.size(0), order, x, params);
  Operand scale, shift;
  split_params(params, form, order, scale, shift);
  CouplingForward<T> call{};
  plan.data(call.x, operand(x, order));
  plan.data(call.y, operand(y, order));
  plan.param(call.a, scale);
  plan.param(call.t, shift);
  plan.finish(true, false);
  if (x.size(0) == 0) return;
  call.walk = plan.walk();
  call.form = form;
  call.log_det = totals_of(log_det);
  call.log_det_out = totals_of(log_det_out);
  MaybeTensor partial;
  if (call.walk.chunks > 1) {
    partial = workspace(x, plan.units(), ScalarType::Double);
    call.partial = static_cast<double*>(partial->mutable_data_ptr());
  }
  plan.dispatch([&]<class X, class P, int N>() {
    if constexpr (std::is_same_v<Working<X>, T>) HK_LAUNCH((hk_affine_coupling_forward<X, P, N>), plan.blocks(), call);
  });
  if (partial) finish_rows(*partial, call.walk.rows, call.walk.chunks, call.log_det, call.log_det_out, 1.0);
}

struct Gradients {
  Tensor x, params;
  MaybeTensor recovered;
};

template <class T>
void backward(const Tensor& known, const Tensor& params, const MaybeTensor& grad_y, const MaybeTensor& grad_log_det,
              const Gradients& out, KnownKind kind, int64_t code, const FormNumbers& numbers) {
  const RowOrder order = order_of(known);
  const auto form = decode_form<T>(code, numbers.data());
  Plan plan(known.size(0), order, known, params);
  Operand scale, shift, grad_scale, grad_shift;
  split_params(params, form, order, scale, shift);
  split_params(out.params, form, order, grad_scale, grad_shift);
  CouplingBackward<T> call{};
  plan.data(call.known, operand(known, order));
  if (grad_y) plan.data(call.grad_y, operand(*grad_y, order));
  plan.data(call.grad_x, operand(out.x, order));
  if (out.recovered) plan.data(call.x, operand(*out.recovered, order));
  plan.param(call.a, scale);
  plan.param(call.t, shift);
  plan.param(call.grad_a, grad_scale);
  plan.param(call.grad_t, grad_shift);
  plan.finish(false, !grad_log_det);
  if (known.numel() == 0) return;
  call.walk = plan.walk();
  call.form = form;
  call.kind = kind;
  call.grad_log_det = totals_of(grad_log_det);
  plan.dispatch([&]<class X, class P, int N>() {
    if constexpr (std::is_same_v<Working<X>, T>) HK_LAUNCH((hk_affine_coupling_backward<X, P, N>), plan.blocks(), call);
  });
}

std::tuple<Tensor, Tensor> affine_coupling_forward(const Tensor& x, const Tensor& params, const MaybeTensor& log_det,
                                                   int64_t code, const FormNumbers& numbers) {
  check_coupling_forward(x, params, log_det, code, numbers);
  const OnDeviceOf device(x);
  Tensor y = torch::stable::empty_like(x);
  Tensor log_det_out = empty_totals(x, is_double(x) || (log_det && is_double(*log_det)));
  Writable out(y);
  const auto run = is_double(x) ? forward<double> : forward<float>;
  run(foldable(x), foldable(params), log_det, out.tensor, log_det_out, code, numbers);
  out.finish();
  return {y, log_det_out};
}

Gradients gradients(const Tensor& known, const Tensor& params, const MaybeTensor& grad_y,
                    const MaybeTensor& grad_log_det, KnownKind kind, int64_t code, const FormNumbers& numbers) {
  check_coupling_backward(kind == output_recover ? "y" : "known", known, params, grad_y, grad_log_det, code, numbers);
  const OnDeviceOf device(known);
  Gradients result{torch::stable::empty_like(known), torch::stable::empty_like(params), std::nullopt};
  Writable grad_x(result.x), grad_params(result.params);
  std::optional<Writable> recovered;
  if (kind == output_recover) {
    result.recovered = torch::stable::empty_like(known);
    recovered.emplace(*result.recovered);
  }
  Gradients out{grad_x.tensor, grad_params.tensor, std::nullopt};
  if (recovered) out.recovered = recovered->tensor;
  MaybeTensor incoming;
  if (grad_y) incoming = incoming_gradient(*grad_y);
  const auto run = is_double(known) ? backward<double> : backward<float>;
  run(foldable(known), foldable(params), incoming, grad_log_det, out, kind, code, numbers);
  grad_x.finish();
  grad_params.finish();
  if (recovered) recovered->finish();
  return result;
}

std::tuple<Tensor, Tensor> affine_coupling_backward(const Tensor& known, const Tensor& params,
                                                    const MaybeTensor& grad_y, const MaybeTensor& grad_log_det,
                                                    int64_t code, const FormNumbers& numbers, bool known_is_output) {
  const Gradients g =
      gradients(known, params, grad_y, grad_log_det, known_is_output ? from_output : from_input, code, numbers);
  return {g.x, g.params};
}

std::tuple<Tensor, Tensor, Tensor> affine_coupling_backward_from_output(const Tensor& y, const Tensor& params,
                                                                        const MaybeTensor& grad_y,
                                                                        const MaybeTensor& grad_log_det, int64_t code,
                                                                        const FormNumbers& numbers) {
  const Gradients g = gradients(y, params, grad_y, grad_log_det, output_recover, code, numbers);
  return {*g.recovered, g.x, g.params};
}

}  // namespace
}  // namespace hk::cuda

HK_REGISTER(m) {
  m.impl("affine_coupling_forward", TORCH_BOX(&hk::cuda::affine_coupling_forward));
  m.impl("affine_coupling_backward", TORCH_BOX(&hk::cuda::affine_coupling_backward));
  m.impl("affine_coupling_backward_from_output", TORCH_BOX(&hk::cuda::affine_coupling_backward_from_output));
}
