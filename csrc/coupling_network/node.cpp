// Autograd node of coupling_network.
#include "../autograd/node.h"

namespace hk::nodes::coupling_network {
namespace {

constexpr size_t arguments = 7;  // x, three weights and three biases
using Kept = std::tuple<Tensor, Tensor, Tensor>;
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

struct NetworkNode : Node<NetworkNode, Kept(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                            const Tensor&, const Tensor&, const bool&, const bool&)> {
  static constexpr const char* name = "coupling_network";
  static constexpr size_t returns = 1;

  static Kept run(const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2,
                  const Tensor& w3, const Tensor& b3, bool bf16, bool save_hidden) {
    static const auto op =
        operator_handle<Kept(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                             const Tensor&, bool, bool)>("hybridkern::coupling_network_forward");
    return op.call(x, w1, b1, w2, b2, w3, b3, bf16, save_hidden);
  }

  static Kept unrecorded(const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2,
                         const Tensor& w3, const Tensor& b3, bool bf16, bool) {
    return run(x, w1, b1, w2, b2, w3, b3, bf16, false);
  }

  // Whether x wants a gradient.
  static double note(const Tensor& x, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                     const Tensor&, bool, bool) {
    return x.requires_grad();
  }

  static variable_list saves(const Given& given, const variable_list& out, const Options&) {
    variable_list kept(given.begin(), given.end());
    kept.insert(kept.end(), out.begin() + 1, out.end());
    return kept;
  }

  static variable_list gradients(const variable_list& saved, const variable_list& grads, const Options& o) {
    static const auto op = operator_handle<Gradients(
        const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
        const Tensor&, const Tensor&, const Tensor&, bool, bool)>("hybridkern::coupling_network_backward");
    const bool bf16 = o[0] != 0, wants_x = o[2] != 0;
    variable_list out = std::apply([](const auto&... each) { return variable_list{each...}; },
                                   op.call(grads[0], saved[0], saved[1], saved[2], saved[3], saved[4], saved[5],
                                           saved[6], saved[arguments], saved[arguments + 1], bf16, wants_x));
    if (!wants_x) out[0] = Tensor();
    return out;
  }
};

const Registered registered = Registered::nodes<NetworkNode>();

}  // namespace
}  // namespace hk::nodes::coupling_network
