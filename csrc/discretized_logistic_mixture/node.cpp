// Autograd node of discretized_logistic_mixture.
#include "../autograd/node.h"

namespace hk::nodes::discretized_logistic_mixture {
namespace {

struct MixtureNode : Node<MixtureNode, Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const double&,
                                              const bool&)> {
  static constexpr const char* name = "discretized_logistic_mixture";

  static bool fits(const Tensor& x, const Tensor& logits, const Tensor& mean, const Tensor& log_scale, const double&,
                   const bool&) {
    return logits.dim() == x.dim() + 1 && mean.sizes() == logits.sizes() && log_scale.sizes() == logits.sizes();
  }

  static Tensor run(const Tensor& x, const Tensor& logits, const Tensor& mean, const Tensor& log_scale,
                    double bin_width, bool reduce) {
    static const auto op =
        operator_handle<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, double, bool)>(
            "hybridkern::discretized_logistic_mixture_forward");
    return op.call(x, logits, mean, log_scale, bin_width, reduce);
  }

  static variable_list saves(const Given& given, const variable_list&, const Options&) {
    return {given.begin(), given.end()};
  }

  static variable_list gradients(const variable_list& saved, const variable_list& grads, const Options& o) {
    static const auto op = operator_handle<std::tuple<Tensor, Tensor, Tensor, Tensor>(
        const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, double, bool)>(
        "hybridkern::discretized_logistic_mixture_backward");
    auto [x, logits, mean, log_scale] = op.call(grads[0], saved[0], saved[1], saved[2], saved[3], o[0], o[1] != 0);
    return {x, logits, mean, log_scale};
  }
};

const Registered registered = Registered::nodes<MixtureNode>();

}  // namespace
}  // namespace hk::nodes::discretized_logistic_mixture
