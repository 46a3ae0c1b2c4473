// Autograd nodes of affine_coupling, affine_coupling_actnorm and rounding_coupling.
#include "node.h"
#include "nodes.h"

namespace hk::nodes {
namespace {

struct AffineForm {
  int64_t code;
  double clamp, offset, eps, gain, shift_gain;
};

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
    at::AutoDispatchBelowADInplaceOrView below;
    auto [y, total] =
        op.call(x, params, log_det, form.code, form.clamp, form.offset, form.eps, form.gain, form.shift_gain);
    const bool keep_output = keeps_output(x, form.code);
    ctx->save_for_backward({keep_output ? y : x, params});
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

struct ActnormNode : torch::autograd::Function<ActnormNode> {
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& params, const Tensor& scale,
                               const Tensor& offset, const AffineForm& form) {
    static const auto op = operator_handle<std::tuple<Tensor, Tensor>(
        const Tensor&, const Tensor&, const Tensor&, const Tensor&, int64_t, double, double, double, double, double)>(
        "hybridkern::affine_coupling_actnorm_forward");
    ctx->save_for_backward({x, params, scale});
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

struct RoundingNode : torch::autograd::Function<RoundingNode> {
  static constexpr bool is_traceable = true;

  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& t, const OptionalTensor& beta,
                        bool inverse) {
    static const auto op = operator_handle<Tensor(const Tensor&, const Tensor&, const OptionalTensor&, bool)>(
        "hybridkern::rounding_coupling_forward");
    if (beta) ctx->save_for_backward({t, *beta});  // else nothing of t is needed
    keep_options(ctx, {inverse ? 1.0 : 0.0, static_cast<double>(t.scalar_type())});
    at::AutoDispatchBelowADInplaceOrView below;
    return op.call(x, t, beta, inverse);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    static const auto op =
        operator_handle<std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, bool)>(
            "hybridkern::rounding_coupling_backward");
    const variable_list saved = ctx->get_saved_variables();
    const std::vector<double> o = options_of(ctx);
    if (by_formulas()) return reference_gradient("rounding_coupling", saved, grads, o, 3, 4);
    const Tensor& grad = grads[0];
    if (saved.empty()) {
      const Tensor signed_grad = o[0] != 0 ? grad.neg() : grad;
      return {grad, signed_grad.to(static_cast<at::ScalarType>(o[1])), Tensor(), Tensor()};
    }
    auto [grad_t, grad_beta] = op.call(grad, saved[0], saved[1], o[0] != 0);
    return {grad, grad_t, grad_beta, Tensor()};
  }
};

}  // namespace

OptionalPair affine_coupling(const Tensor& x, const Tensor& params, const OptionalTensor& log_det, int64_t code,
                             double clamp, double offset, double eps, double gain, double shift_gain) {
  if (!may_serve(x, params, log_det)) return std::nullopt;
  const AffineForm form{code, clamp, offset, eps, gain, shift_gain};
  const variable_list out = AffineNode::apply(x, params, log_det, form);
  return std::make_tuple(out[0], out[1]);
}

OptionalPair affine_coupling_actnorm(const Tensor& x, const Tensor& params, const Tensor& scale, const Tensor& offset,
                                     int64_t code, double clamp, double form_offset, double eps, double gain,
                                     double shift_gain) {
  if (!may_serve(x, params, scale) || !may_serve(offset)) return std::nullopt;
  const AffineForm form{code, clamp, form_offset, eps, gain, shift_gain};
  const variable_list out = ActnormNode::apply(x, params, scale, offset, form);
  return std::make_tuple(out[0], out[1]);
}

OptionalTensor rounding_coupling(const Tensor& x, const Tensor& t, const OptionalTensor& beta, bool inverse) {
  if (!may_serve(x, t, beta)) return std::nullopt;
  return RoundingNode::apply(x, t, beta, inverse);
}

}  // namespace hk::nodes
