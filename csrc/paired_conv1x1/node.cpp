// Autograd node of paired_conv1x1.
#include "../autograd/node.h"

namespace hk::nodes::paired_conv1x1 {
namespace {

using Halves = std::tuple<Tensor, Tensor>;

struct PairedNode : Node<PairedNode, Halves(const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&)> {
  static constexpr const char* name = "paired_conv1x1";

  // Where nothing is converted on the way to the kernel.
  static bool fits(const Tensor& first, const Tensor&, const Tensor& weight, const OptionalTensor& bias) {
    const at::ScalarType type = first.scalar_type();
    const auto as_is = [&](const Tensor& value) { return value.scalar_type() == type && value.is_contiguous(); };
    return (type == at::kFloat || type == at::kDouble) && first.dim() > 1 && first.size(1) > 0 && as_is(weight) &&
           (!bias || as_is(*bias));
  }

  static Halves run(const Tensor& first, const Tensor& second, const Tensor& weight, const OptionalTensor& bias) {
    static const auto op = operator_handle<Halves(const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&)>(
        "hybridkern::paired_conv1x1_forward");
    return op.call(first, second, weight, bias);
  }

  static variable_list saves(const Given& given, const variable_list&, const Options&) {
    return {given[0], given[1], given[2]};
  }

  static variable_list gradients(const variable_list& saved, const variable_list& grads, const Options&) {
    static const auto op = operator_handle<std::tuple<Tensor, Tensor, Tensor, Tensor>(
        const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&)>(
        "hybridkern::paired_conv1x1_backward");
    const auto whole = [&](size_t half) { return grads[half].defined() ? grads[half] : at::zeros_like(saved[half]); };
    auto [first, second, weight, bias] = op.call(whole(0), whole(1), saved[0], saved[1], saved[2]);
    return {first, second, weight, bias};
  }
};

const Registered registered = Registered::nodes<PairedNode>();

}  // namespace
}  // namespace hk::nodes::paired_conv1x1
