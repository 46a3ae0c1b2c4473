// Autograd node of affine_coupling_actnorm.
#include "../autograd/node.h"

namespace hk::nodes {
namespace {

struct ActnormNode : torch::autograd::Function<ActnormNode> {
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& params, const Tensor& scale,
                               const Tensor& offset, const AffineForm& form) {
    static const auto op = operator_handle<std::tuple<Tensor, Tensor>(
        const Tensor&, const Tensor&, const Tensor&, const Tensor&, int64_t, double, double, double, double, double)>(
        "hybridkern::affine_coupling_actnorm_forward");
    ctx->save_for_backward({as_given(x), as_given(params), as_given(scale)});
    keep_options(ctx, {static_cast<double>(form.code), form.clamp, form.offset, form.eps, form.gain, form.shift_gain});
    at::AutoDispatchBelowADInplaceOrView below;
    auto [y, log_det] =
        op.call(x, params, scale, offset, form.code, form.clamp, form.offset, form.eps, form.gain, form.shift_gain);
    return {y, log_det};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    static const auto op = operator_handle<std::tuple<Tensor, Tensor, Tensor, Tensor>(
        const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, int64_t, double, double, double,
        double, double)>("hybridkern::affine_coupling_actnorm_backward");
    const variable_list saved = ctx->get_saved_variables();
    const std::vector<double> o = options_of(ctx);
    if (by_formulas()) return reference_gradient("affine_coupling_actnorm", saved, grads, o, 4, 5);
    auto [grad_x, grad_params, grad_scale, grad_offset] = op.call(
        grads[0], grads[1], saved[0], saved[1], saved[2], static_cast<int64_t>(o[0]), o[1], o[2], o[3], o[4], o[5]);
    return {grad_x, grad_params, grad_scale, grad_offset, Tensor()};
  }
};

OptionalPair affine_coupling_actnorm(const Tensor& x, const Tensor& params, const Tensor& scale, const Tensor& offset,
                                     int64_t code, double clamp, double form_offset, double eps, double gain,
                                     double shift_gain) {
  if (!may_serve(x, params, scale) || !may_serve(offset)) return std::nullopt;
  const AffineForm form{code, clamp, form_offset, eps, gain, shift_gain};
  const variable_list out = ActnormNode::apply(x, params, scale, offset, form);
  return std::make_tuple(out[0], out[1]);
}

const Registered registered([](pybind11::module_& m) {
  define(m, "affine_coupling_actnorm", &affine_coupling_actnorm);
});

}  // namespace
}  // namespace hk::nodes
