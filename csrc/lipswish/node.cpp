// Autograd nodes of lipswish: of the call, and of its backward pass.
#include "../autograd/node.h"

namespace hk::nodes::lipswish {
namespace {

using Pair = std::tuple<Tensor, Tensor>;

struct LipswishBackwardNode
    : Node<LipswishBackwardNode, Pair(const Tensor&, const Tensor&, const Tensor&, const bool&)> {
  static constexpr const char* name = "lipswish_backward";

  static Pair run(const Tensor& grad, const Tensor& x, const Tensor& b, bool paired) {
    static const auto op =
        operator_handle<Pair(const Tensor&, const Tensor&, const Tensor&, bool)>("hybridkern::lipswish_backward");
    return op.call(grad, x, b, paired);
  }

  static variable_list saves(const Given& given, const variable_list&, const Options&) {
    return {given.begin(), given.end()};
  }

  static variable_list gradients(const variable_list& saved, const variable_list& grads, const Options& o) {
    static const auto op = operator_handle<std::tuple<Tensor, Tensor, Tensor>(
        const OptionalTensor&, const OptionalTensor&, const Tensor&, const Tensor&, const Tensor&, bool)>(
        "hybridkern::lipswish_double_backward");
    auto [grad, x, b] = op.call(given(grads[0]), given(grads[1]), saved[0], saved[1], saved[2], o[0] != 0);
    return {grad, x, b};
  }
};

struct LipswishNode : Node<LipswishNode, Tensor(const Tensor&, const Tensor&, const bool&)> {
  static constexpr const char* name = "lipswish";

  static Tensor run(const Tensor& x, const Tensor& b, bool paired) {
    static const auto op = operator_handle<Tensor(const Tensor&, const Tensor&, bool)>("hybridkern::lipswish_forward");
    return op.call(x, b, paired);
  }

  static variable_list saves(const Given& given, const variable_list&, const Options&) { return {given[0], given[1]}; }

  static variable_list gradients(const variable_list& saved, const variable_list& grads, const Options& o) {
    auto [x, b] = LipswishBackwardNode::run(grads[0], saved[0], saved[1], o[0] != 0);
    return {x, b};
  }

  static variable_list recorded_gradients(const variable_list& saved, const variable_list& grads, const Options& o) {
    if (!is_plain_call()) return Node::recorded_gradients(saved, grads, o);  // batched by torch.func
    return LipswishBackwardNode::apply(grads[0], saved[0], saved[1], o[0] != 0);
  }
};

const Registered registered = Registered::nodes<LipswishNode, LipswishBackwardNode>();

}  // namespace
}  // namespace hk::nodes::lipswish
