// Autograd nodes of the log-probabilities.
#include "node.h"
#include "nodes.h"

namespace hk::nodes {
namespace {

struct LogisticNode : torch::autograd::Function<LogisticNode> {
  static constexpr bool is_traceable = true;

  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& mean, const Tensor& log_scale,
                        double bin_width, bool reduce) {
    static const auto op = operator_handle<Tensor(const Tensor&, const Tensor&, const Tensor&, double, bool)>(
        "hybridkern::discretized_logistic_forward");
    ctx->save_for_backward({x, mean, log_scale});
    keep_options(ctx, {bin_width, reduce ? 1.0 : 0.0});
    at::AutoDispatchBelowADInplaceOrView below;
    return op.call(x, mean, log_scale, bin_width, reduce);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    static const auto op =
        operator_handle<std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                                           double, bool)>("hybridkern::discretized_logistic_backward");
    const variable_list saved = ctx->get_saved_variables();
    const std::vector<double> o = options_of(ctx);
    if (by_formulas()) return reference_gradient("discretized_logistic", saved, grads, o, 3, 5);
    auto [x, mean, log_scale] = op.call(grads[0], saved[0], saved[1], saved[2], o[0], o[1] != 0);
    return {x, mean, log_scale, Tensor(), Tensor()};
  }
};

struct MixtureNode : torch::autograd::Function<MixtureNode> {
  static constexpr bool is_traceable = true;

  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& logits, const Tensor& mean,
                        const Tensor& log_scale, double bin_width, bool reduce) {
    static const auto op =
        operator_handle<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, double, bool)>(
            "hybridkern::discretized_logistic_mixture_forward");
    ctx->save_for_backward({x, logits, mean, log_scale});
    keep_options(ctx, {bin_width, reduce ? 1.0 : 0.0});
    at::AutoDispatchBelowADInplaceOrView below;
    return op.call(x, logits, mean, log_scale, bin_width, reduce);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    static const auto op = operator_handle<std::tuple<Tensor, Tensor, Tensor, Tensor>(
        const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, double, bool)>(
        "hybridkern::discretized_logistic_mixture_backward");
    const variable_list saved = ctx->get_saved_variables();
    const std::vector<double> o = options_of(ctx);
    if (by_formulas()) return reference_gradient("discretized_logistic_mixture", saved, grads, o, 4, 6);
    auto [x, logits, mean, log_scale] = op.call(grads[0], saved[0], saved[1], saved[2], saved[3], o[0], o[1] != 0);
    return {x, logits, mean, log_scale, Tensor(), Tensor()};
  }
};

struct GaussianNode : torch::autograd::Function<GaussianNode> {
  static constexpr bool is_traceable = true;

  static Tensor forward(AutogradContext* ctx, const Tensor& x, const OptionalTensor& mean,
                        const OptionalTensor& log_scale) {
    static const auto op = operator_handle<Tensor(const Tensor&, const OptionalTensor&, const OptionalTensor&)>(
        "hybridkern::gaussian_log_prob_forward");
    ctx->save_for_backward({x, mean.value_or(Tensor()), log_scale.value_or(Tensor())});
    at::AutoDispatchBelowADInplaceOrView below;
    return op.call(x, mean, log_scale);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    static const auto op = operator_handle<std::tuple<Tensor, Tensor, Tensor>(
        const Tensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&)>(
        "hybridkern::gaussian_log_prob_backward");
    const variable_list saved = ctx->get_saved_variables();
    if (by_formulas()) return reference_gradient("gaussian_log_prob", saved, grads, {}, 3, 3);
    auto [x, mean, log_scale] = op.call(grads[0], saved[0], given(saved[1]), given(saved[2]));
    return {x, saved[1].defined() ? mean : Tensor(), saved[2].defined() ? log_scale : Tensor()};
  }
};

}  // namespace

OptionalTensor discretized_logistic(const Tensor& x, const Tensor& mean, const Tensor& log_scale, double bin_width,
                                    bool reduce) {
  if (!may_serve(x, mean, log_scale)) return std::nullopt;
  return LogisticNode::apply(x, mean, log_scale, bin_width, reduce);
}

OptionalTensor discretized_logistic_mixture(const Tensor& x, const Tensor& logits, const Tensor& mean,
                                            const Tensor& log_scale, double bin_width, bool reduce) {
  if (!may_serve(x, logits, mean, log_scale)) return std::nullopt;
  return MixtureNode::apply(x, logits, mean, log_scale, bin_width, reduce);
}

OptionalTensor gaussian_log_prob(const Tensor& x, const OptionalTensor& mean, const OptionalTensor& log_scale) {
  if (!may_serve(x, mean, log_scale)) return std::nullopt;
  return GaussianNode::apply(x, mean, log_scale);
}

}  // namespace hk::nodes
