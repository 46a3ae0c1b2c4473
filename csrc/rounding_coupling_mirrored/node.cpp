// Autograd nodes of rounding_coupling_mirrored: the halves of its result, the result, or the result and its prior.
#include "../autograd/node.h"

namespace hk::nodes {
namespace {

// A gradient as the kernel reads it: rows without gaps; zeros where the loss does not depend on the output.
Tensor rows(const Tensor& grad, const Tensor& like) {
  if (!grad.defined()) return at::zeros_like(like);
  return grad.stride(1) == 1 ? grad : grad.contiguous();
}

Tensor run_forward(const Tensor& a, const Tensor& b, const Tensor& t, const Tensor& beta, int64_t index, bool lattice) {
  static const auto op =
      operator_handle<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, int64_t, bool)>(
          "hybridkern::rounding_coupling_mirrored_forward");
  return op.call(a, b, t, beta, index, lattice);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> run_backward(const Tensor& first, const Tensor& second, const Tensor& t,
                                                        const Tensor& beta, const std::vector<double>& options) {
  static const auto op = operator_handle<std::tuple<Tensor, Tensor, Tensor, Tensor>(
      const Tensor&, const Tensor&, const Tensor&, const Tensor&, int64_t, bool)>(
      "hybridkern::rounding_coupling_mirrored_backward");
  return op.call(first, second, t, beta, static_cast<int64_t>(options[0]), options[1] != 0);
}

void keep(AutogradContext* ctx, int64_t index, bool lattice) {
  keep_options(ctx, {static_cast<double>(index), lattice ? 1.0 : 0.0});
}

struct HalvesNode : torch::autograd::Function<HalvesNode> {
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext* ctx, const Tensor& a, const Tensor& b, const Tensor& t,
                               const Tensor& beta, int64_t index, bool lattice) {
    ctx->save_for_backward({as_given(t), as_given(beta)});
    keep(ctx, index, lattice);
    ctx->set_materialize_grads(false);
    at::AutoDispatchBelowADInplaceOrView below;  // so the halves are no views to autograd
    const Tensor z = run_forward(a, b, t, beta, index, lattice);
    const int64_t half = a.size(1);
    return {z.narrow(1, 0, half), z.narrow(1, half, half)};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    if (by_formulas()) return reference_gradient("mirrored_halves", saved, grads, options_of(ctx), 4, 6);
    const Tensor& t = saved[0];
    auto [a, b, to_t, beta] = run_backward(rows(grads[0], t), rows(grads[1], t), t, saved[1], options_of(ctx));
    return {a, b, to_t, beta, Tensor(), Tensor()};
  }
};

struct JoinedNode : torch::autograd::Function<JoinedNode> {
  static constexpr bool is_traceable = true;

  static Tensor forward(AutogradContext* ctx, const Tensor& a, const Tensor& b, const Tensor& t, const Tensor& beta,
                        int64_t index, bool lattice) {
    ctx->save_for_backward({as_given(t), as_given(beta)});
    keep(ctx, index, lattice);
    at::AutoDispatchBelowADInplaceOrView below;
    return run_forward(a, b, t, beta, index, lattice);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    if (by_formulas()) return reference_gradient("mirrored_joined", saved, grads, options_of(ctx), 4, 6);
    const Tensor& t = saved[0];
    const int64_t half = t.size(1);
    const Tensor grad = rows(grads[0], t);
    auto [a, b, to_t, beta] =
        run_backward(grad.narrow(1, 0, half), grad.narrow(1, half, half), t, saved[1], options_of(ctx));
    return {a, b, to_t, beta, Tensor(), Tensor()};
  }
};

struct PriorNode : torch::autograd::Function<PriorNode> {
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext* ctx, const Tensor& a, const Tensor& b, const Tensor& t,
                               const Tensor& beta, const Tensor& mean, const Tensor& log_scale, int64_t index,
                               bool lattice) {
    static const auto prior = operator_handle<Tensor(const Tensor&, const Tensor&, const Tensor&, double, bool)>(
        "hybridkern::discretized_logistic_forward");
    variable_list kept{Tensor(), as_given(t), as_given(beta), as_given(mean), as_given(log_scale)};
    at::AutoDispatchBelowADInplaceOrView below;
    const Tensor z = run_forward(a, b, t, beta, index, lattice);
    kept[0] = z;
    ctx->save_for_backward(std::move(kept));
    keep(ctx, index, lattice);
    ctx->set_materialize_grads(false);
    return {z, prior.call(z, mean, log_scale, 1.0, true)};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    static const auto prior =
        operator_handle<std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                                           double, bool)>("hybridkern::discretized_logistic_backward");
    const variable_list saved = ctx->get_saved_variables();
    if (by_formulas()) return reference_gradient("mirrored_with_prior", saved, grads, options_of(ctx), 6, 8);
    const Tensor &z = saved[0], &t = saved[1];
    Tensor grad = grads[0], grad_mean, grad_log_scale;
    if (grads[1].defined()) {
      std::tie(grad, grad_mean, grad_log_scale) = prior.call(grads[1], z, saved[3], saved[4], 1.0, true);
      if (grads[0].defined()) grad = grad.add(grads[0]);
    }
    grad = rows(grad, z);
    const int64_t half = t.size(1);
    auto [a, b, to_t, beta] =
        run_backward(grad.narrow(1, 0, half), grad.narrow(1, half, half), t, saved[2], options_of(ctx));
    return {a, b, to_t, beta, grad_mean, grad_log_scale, Tensor(), Tensor()};
  }
};

OptionalPair mirrored_halves(const Tensor& a, const Tensor& b, const Tensor& t, const Tensor& beta, int64_t index,
                             bool lattice) {
  if (!may_serve(a, b, t, beta)) return std::nullopt;
  const variable_list out = HalvesNode::apply(a, b, t, beta, index, lattice);
  return std::make_tuple(out[0], out[1]);
}

OptionalTensor mirrored_joined(const Tensor& a, const Tensor& b, const Tensor& t, const Tensor& beta, int64_t index,
                               bool lattice) {
  if (!may_serve(a, b, t, beta)) return std::nullopt;
  return JoinedNode::apply(a, b, t, beta, index, lattice);
}

OptionalPair mirrored_with_prior(const Tensor& a, const Tensor& b, const Tensor& t, const Tensor& beta,
                                 const Tensor& mean, const Tensor& log_scale, int64_t index, bool lattice) {
  if (!may_serve(a, b, t, beta, mean, log_scale)) return std::nullopt;
  const variable_list out = PriorNode::apply(a, b, t, beta, mean, log_scale, index, lattice);
  return std::make_tuple(out[0], out[1]);
}

const Registered registered([](pybind11::module_& m) {
  define(m, "mirrored_halves", &mirrored_halves);
  define(m, "mirrored_joined", &mirrored_joined);
  define(m, "mirrored_with_prior", &mirrored_with_prior);
});

}  // namespace
}  // namespace hk::nodes
