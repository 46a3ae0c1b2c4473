// Autograd node of rounding_coupling.
#include "../autograd/node.h"

namespace hk::nodes {
namespace {

struct RoundingNode : torch::autograd::Function<RoundingNode> {
  static constexpr bool is_traceable = true;

  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& t, const OptionalTensor& beta,
                        bool inverse) {
    static const auto op = operator_handle<Tensor(const Tensor&, const Tensor&, const OptionalTensor&, bool)>(
        "hybridkern::rounding_coupling_forward");
    if (beta) ctx->save_for_backward({as_given(t), as_given(*beta)});  // else nothing of t is needed
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

OptionalTensor rounding_coupling(const Tensor& x, const Tensor& t, const OptionalTensor& beta, bool inverse) {
  if (!may_serve(x, t, beta)) return std::nullopt;
  return RoundingNode::apply(x, t, beta, inverse);
}

const Registered registered([](pybind11::module_& m) { define(m, "rounding_coupling", &rounding_coupling); });

}  // namespace
}  // namespace hk::nodes
