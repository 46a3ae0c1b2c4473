// Autograd node of gaussian_log_prob.
#include "../autograd/node.h"

namespace hk::nodes::gaussian_log_prob {
namespace {

struct GaussianNode : Node<GaussianNode, Tensor(const Tensor&, const OptionalTensor&, const OptionalTensor&)> {
  static constexpr const char* name = "gaussian_log_prob";

  static bool fits(const Tensor& x, const OptionalTensor& mean, const OptionalTensor& log_scale) {
    const Tensor& first = mean ? *mean : log_scale ? *log_scale : x;
    return ((!mean && !log_scale) || fits_rows(first, x)) && (!log_scale || log_scale->sizes() == first.sizes());
  }

  static Tensor run(const Tensor& x, const OptionalTensor& mean, const OptionalTensor& log_scale) {
    static const auto op = operator_handle<Tensor(const Tensor&, const OptionalTensor&, const OptionalTensor&)>(
        "hybridkern::gaussian_log_prob_forward");
    return op.call(x, mean, log_scale);
  }

  static variable_list saves(const Given& given, const variable_list&, const Options&) {
    return {given.begin(), given.end()};
  }

  static variable_list gradients(const variable_list& saved, const variable_list& grads, const Options&) {
    static const auto op = operator_handle<std::tuple<Tensor, Tensor, Tensor>(
        const Tensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&)>(
        "hybridkern::gaussian_log_prob_backward");
    auto [x, mean, log_scale] = op.call(grads[0], saved[0], given(saved[1]), given(saved[2]));
    return {x, mean, log_scale};
  }
};

const Registered registered = Registered::nodes<GaussianNode>();

}  // namespace
}  // namespace hk::nodes::gaussian_log_prob
