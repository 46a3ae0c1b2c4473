// Autograd node of affine_coupling.
#include "../autograd/node.h"

namespace hk::nodes {
namespace {

// Whether y = (x + t)*s, by CouplingForm.code; its derivative in the raw scale then holds y itself, so neither x nor t
// need be read again. A rounded y would cost low-precision gradients a digit.
bool keeps_output(const Tensor& x, int64_t code) {
  const bool before = ((code >> 4) & 15) != 0, inverse = (code >> 13) & 1;
  const bool low = x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf;
  return (code & 15) != 0 && before != inverse && !low;
}

struct AffineNode : torch::autograd::Function<AffineNode> {
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& params,
                               const OptionalTensor& log_det, const AffineForm& form) {
    static const auto op = operator_handle<std::tuple<Tensor, Tensor>(
        const Tensor&, const Tensor&, const OptionalTensor&, int64_t, double, double, double, double, double)>(
        "hybridkern::affine_coupling_forward");
    const Tensor given_x = as_given(x), given_params = as_given(params);
    at::AutoDispatchBelowADInplaceOrView below;
    auto [y, total] =
        op.call(x, params, log_det, form.code, form.clamp, form.offset, form.eps, form.gain, form.shift_gain);
    const bool keep_output = keeps_output(x, form.code);
    ctx->save_for_backward({keep_output ? y : given_x, given_params});
    const double dtype = log_det ? static_cast<double>(log_det->scalar_type()) : -1;
    keep_options(ctx, {static_cast<double>(form.code), form.clamp, form.offset, form.eps, form.gain, form.shift_gain,
                       keep_output ? 1.0 : 0.0, dtype});
    ctx->set_materialize_grads(false);
    return {y, total};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    static const auto op = operator_handle<std::tuple<Tensor, Tensor>(
        const Tensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&, int64_t, double, double, double,
        double, double, bool)>("hybridkern::affine_coupling_backward");
    const variable_list saved = ctx->get_saved_variables();
    const std::vector<double> o = options_of(ctx);
    if (by_formulas()) {
      variable_list found = reference_gradient("affine_coupling", saved, grads, o, 3, 4);
      if (o[7] < 0) found[2] = Tensor();
      return found;
    }
    auto [grad_x, grad_params] = op.call(saved[0], saved[1], given(grads[0]), given(grads[1]),
                                         static_cast<int64_t>(o[0]), o[1], o[2], o[3], o[4], o[5], o[6] != 0);
    Tensor grad_total;
    if (o[7] >= 0 && grads[1].defined()) grad_total = grads[1].to(static_cast<at::ScalarType>(o[7]));
    return {grad_x, grad_params, grad_total, Tensor()};
  }
};

OptionalPair affine_coupling(const Tensor& x, const Tensor& params, const OptionalTensor& log_det, int64_t code,
                             double clamp, double offset, double eps, double gain, double shift_gain) {
  if (!may_serve(x, params, log_det)) return std::nullopt;
  const AffineForm form{code, clamp, offset, eps, gain, shift_gain};
  const variable_list out = AffineNode::apply(x, params, log_det, form);
  return std::make_tuple(out[0], out[1]);
}

const Registered registered([](pybind11::module_& m) { define(m, "affine_coupling", &affine_coupling); });

}  // namespace
}  // namespace hk::nodes
