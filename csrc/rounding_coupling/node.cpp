// Autograd node of rounding_coupling.
#include "../autograd/node.h"

namespace hk::nodes::rounding_coupling {
namespace {

struct RoundingNode : Node<RoundingNode, Tensor(const Tensor&, const Tensor&, const OptionalTensor&, const bool&)> {
  static constexpr const char* name = "rounding_coupling";

  static Tensor run(const Tensor& x, const Tensor& t, const OptionalTensor& beta, bool inverse) {
    static const auto op = operator_handle<Tensor(const Tensor&, const Tensor&, const OptionalTensor&, bool)>(
        "hybridkern::rounding_coupling_forward");
    return op.call(x, t, beta, inverse);
  }

  // The type of t, which its gradient has.
  static double note(const Tensor&, const Tensor& t, const OptionalTensor&, const bool&) {
    return static_cast<double>(t.scalar_type());
  }

  static variable_list saves(const Given& given, const variable_list&, const Options&) {
    return given[2].defined() ? variable_list{given[1], given[2]} : variable_list{};  // else nothing of t is needed
  }

  static variable_list gradients(const variable_list& saved, const variable_list& grads, const Options& o) {
    static const auto op =
        operator_handle<std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, bool)>(
            "hybridkern::rounding_coupling_backward");
    const Tensor& grad = grads[0];
    if (saved.empty()) return {grad, (o[0] != 0 ? grad.neg() : grad).to(static_cast<at::ScalarType>(o[1]))};
    auto [t, beta] = op.call(grad, saved[0], saved[1], o[0] != 0);
    return {grad, t, beta};
  }
};

const Registered registered = Registered::nodes<RoundingNode>();

}  // namespace
}  // namespace hk::nodes::rounding_coupling
