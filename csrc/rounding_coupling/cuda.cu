// rounding_coupling: forward and backward. Contract: hybridkern/ops.
#include <tuple>

#include "../cuda/plan.h"
#include "contract.h"
// after the shim
#include "cuda.cuh"

namespace hk::cuda {
namespace {

Tensor rounding_coupling_forward(const Tensor& x, const Tensor& t, const std::optional<Tensor>& beta, bool inverse) {
  check_rounding("x", x, t, beta);
  const OnDeviceOf device(x);
  Tensor y = torch::stable::empty_like(x);
  if (x.numel() == 0) return y;
  Writable out(y);
  const Tensor xf = foldable(x), tf = foldable(t);
  const RowOrder order = order_of(xf);
  Plan plan(x.size(0), order, xf, tf);
  RoundingForward call{};
  plan.data(call.x, operand(xf, order));
  plan.data(call.y, operand(out.tensor, order));
  plan.param(call.t, operand(tf, order));
  plan.finish(false, true);
  call.walk = plan.walk();
  call.beta = totals_of(beta);
  call.sign = inverse ? -1.0 : 1.0;
  plan.dispatch(
      [&]<class X, class P, int N>() { HK_LAUNCH((hk_rounding_coupling_forward<X, P, N>), plan.blocks(), call); });
  out.finish();
  return y;
}

std::tuple<Tensor, Tensor> rounding_coupling_backward(const Tensor& grad, const Tensor& t, const Tensor& beta,
                                                      bool inverse) {
  check_rounding("grad", grad, t, beta);
  const OnDeviceOf device(grad);
  Tensor grad_t = torch::stable::empty_like(t), grad_beta = torch::stable::empty_like(beta);
  Writable out(grad_t);
  const Tensor gf = incoming_gradient(grad), tf = foldable(t);
  const RowOrder order = order_of(tf);
  Plan plan(t.size(0), order, gf, tf);
  RoundingBackward call{};
  plan.data(call.grad, operand(gf, order));
  plan.param(call.t, operand(tf, order));
  plan.param(call.grad_t, operand(out.tensor, order));
  plan.finish(false, true);
  call.walk = plan.walk();
  call.beta = totals_of(beta);
  call.grad_beta = totals_of(grad_beta);
  call.sign = inverse ? -1.0 : 1.0;
  const unsigned blocks = plan.blocks(worthwhile_blocks);
  std::optional<Tensor> partial;
  if (blocks > 1) {
    partial = workspace(grad, blocks, ScalarType::Double);
    call.partial = static_cast<double*>(partial->mutable_data_ptr());
  }
  plan.dispatch([&]<class X, class P, int N>() { HK_LAUNCH((hk_rounding_coupling_backward<X, P, N>), blocks, call); });
  if (partial) finish_rows(*partial, 1, blocks, {}, call.grad_beta, call.sign);
  out.finish();
  return {grad_t, grad_beta};
}

}  // namespace
}  // namespace hk::cuda

HK_REGISTER(m) {
  m.impl("rounding_coupling_forward", TORCH_BOX(&hk::cuda::rounding_coupling_forward));
  m.impl("rounding_coupling_backward", TORCH_BOX(&hk::cuda::rounding_coupling_backward));
}
