// Autograd node of gaussian_log_prob.
#include "../autograd/node.h"

namespace hk::nodes {
namespace {

struct GaussianNode : torch::autograd::Function<GaussianNode> {
  static constexpr bool is_traceable = true;

  static Tensor forward(AutogradContext* ctx, const Tensor& x, const OptionalTensor& mean,
                        const OptionalTensor& log_scale) {
    static const auto op = operator_handle<Tensor(const Tensor&, const OptionalTensor&, const OptionalTensor&)>(
        "hybridkern::gaussian_log_prob_forward");
    ctx->save_for_backward({as_given(x), as_given(mean), as_given(log_scale)});
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

OptionalTensor gaussian_log_prob(const Tensor& x, const OptionalTensor& mean, const OptionalTensor& log_scale) {
  if (!may_serve(x, mean, log_scale)) return std::nullopt;
  return GaussianNode::apply(x, mean, log_scale);
}

const Registered registered([](pybind11::module_& m) { define(m, "gaussian_log_prob", &gaussian_log_prob); });

}  // namespace
}  // namespace hk::nodes
