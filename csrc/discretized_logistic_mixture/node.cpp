// Autograd node of discretized_logistic_mixture.
#include "../autograd/node.h"

namespace hk::nodes {
namespace {

struct MixtureNode : torch::autograd::Function<MixtureNode> {
  static constexpr bool is_traceable = true;

  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& logits, const Tensor& mean,
                        const Tensor& log_scale, double bin_width, bool reduce) {
    static const auto op =
        operator_handle<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, double, bool)>(
            "hybridkern::discretized_logistic_mixture_forward");
    ctx->save_for_backward({as_given(x), as_given(logits), as_given(mean), as_given(log_scale)});
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

OptionalTensor discretized_logistic_mixture(const Tensor& x, const Tensor& logits, const Tensor& mean,
                                            const Tensor& log_scale, double bin_width, bool reduce) {
  if (!may_serve(x, logits, mean, log_scale)) return std::nullopt;
  return MixtureNode::apply(x, logits, mean, log_scale, bin_width, reduce);
}

const Registered registered([](pybind11::module_& m) {
  define(m, "discretized_logistic_mixture", &discretized_logistic_mixture);
});

}  // namespace
}  // namespace hk::nodes
