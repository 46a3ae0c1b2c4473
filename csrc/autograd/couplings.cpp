// Autograd nodes of affine_coupling, affine_coupling_actnorm and rounding_coupling.
#include "node.h"
#include "nodes.h"

namespace hk::nodes {
namespace {

struct AffineForm {
  int64_t code;
  double clamp, offset, eps, gain, shift_gain;
};

struct AffineNode : torch::autograd::Function<AffineNode> {
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& params,
                               const OptionalTensor& log_det, bool keep_output, const AffineForm& form) {
    static const auto op = operator_handle<std::tuple<Tensor, Tensor>(
        const Tensor&, const Tensor&, const OptionalTensor&, int64_t, double, double, double, double, double)>(
        "hybridkern::affine_coupling_forward");
    at::AutoDispatchBelowADInplaceOrView below;
    auto [y, total] =
        op.call(x, params, log_det, form.code, form.clamp, form.offset, form.eps, form.gain, form.shift_gain);
    // where y = (x + t)*s, its derivative in the raw scale holds y itself: then neither x nor t need be read again
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
    auto [grad_x, grad_params] = op.call(saved[0], saved[1], given(grads[0]), given(grads[1]),
                                         static_cast<int64_t>(o[0]), o[1], o[2], o[3], o[4], o[5], o[6] != 0);
    Tensor grad_total;
    if (o[7] >= 0 && grads[1].defined()) grad_total = grads[1].to(static_cast<at::ScalarType>(o[7]));
    return once_differentiable({grad_x, grad_params, grad_total, Tensor(), Tensor()}, saved, grads);
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
    auto [grad_x, grad_params, grad_scale, grad_offset] = op.call(
        grads[0], grads[1], saved[0], saved[1], saved[2], static_cast<int64_t>(o[0]), o[1], o[2], o[3], o[4], o[5]);
    return once_differentiable({grad_x, grad_params, grad_scale, grad_offset, Tensor()}, saved, grads);
  }
};

struct RoundingNode : torch::autograd::Function<RoundingNode> {
  static constexpr bool is_traceable = true;

  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& t, const OptionalTensor& beta,
                        bool inverse) {
    static const auto op = operator_handle<Tensor(const Tensor&, const Tensor&, const OptionalTensor&, bool)>(
        "hybridkern::rounding_coupling_forward");
    if (beta) ctx->save_for_backward({t, *beta});
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
    const Tensor& grad = grads[0];
    if (saved.empty()) {
      const Tensor signed_grad = o[0] != 0 ? grad.neg() : grad;
      return once_differentiable({grad, signed_grad.to(static_cast<at::ScalarType>(o[1])), Tensor(), Tensor()}, saved,
                                 grads);
    }
    auto [grad_t, grad_beta] = op.call(grad, saved[0], saved[1], o[0] != 0);
    return once_differentiable({grad, grad_t, grad_beta, Tensor()}, saved, grads);
  }
};

}  // namespace

OptionalPair affine_coupling(const Tensor& x, const Tensor& params, const OptionalTensor& log_det, bool keep_output,
                             int64_t code, double clamp, double offset, double eps, double gain, double shift_gain) {
  if (!may_serve(x, params, log_det)) return std::nullopt;
  const AffineForm form{code, clamp, offset, eps, gain, shift_gain};
  const variable_list out = AffineNode::apply(x, params, log_det, keep_output, form);
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
