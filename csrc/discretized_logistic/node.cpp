// Autograd node of discretized_logistic.
#include "../autograd/node.h"

namespace hk::nodes {
namespace {

struct LogisticNode : torch::autograd::Function<LogisticNode> {
  static constexpr bool is_traceable = true;

  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& mean, const Tensor& log_scale,
                        double bin_width, bool reduce) {
    static const auto op = operator_handle<Tensor(const Tensor&, const Tensor&, const Tensor&, double, bool)>(
        "hybridkern::discretized_logistic_forward");
    ctx->save_for_backward({as_given(x), as_given(mean), as_given(log_scale)});
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

OptionalTensor discretized_logistic(const Tensor& x, const Tensor& mean, const Tensor& log_scale, double bin_width,
                                    bool reduce) {
  if (!may_serve(x, mean, log_scale)) return std::nullopt;
  return LogisticNode::apply(x, mean, log_scale, bin_width, reduce);
}

const Registered registered([](pybind11::module_& m) { define(m, "discretized_logistic", &discretized_logistic); });

}  // namespace
}  // namespace hk::nodes
