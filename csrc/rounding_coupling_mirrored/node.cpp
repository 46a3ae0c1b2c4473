// Autograd nodes of rounding_coupling_mirrored: the halves of its result, or the result.
#include "../autograd/node.h"

namespace hk::nodes::rounding_coupling_mirrored {
namespace {

// A gradient as the kernel reads it: rows without gaps; zeros where the loss does not depend on the output.
Tensor rows(const Tensor& grad, const Tensor& like) {
  if (!grad.defined()) return at::zeros_like(like);
  return grad.stride(1) == 1 ? grad : grad.contiguous();
}

Tensor couple(const Tensor& a, const Tensor& b, const Tensor& t, const Tensor& beta, int64_t index, bool lattice) {
  static const auto op =
      operator_handle<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, int64_t, bool)>(
          "hybridkern::rounding_coupling_mirrored_forward");
  return op.call(a, b, t, beta, index, lattice);
}

variable_list coupled_gradients(const Tensor& first, const Tensor& second, const Tensor& t, const Tensor& beta,
                                const Options& options) {
  static const auto op = operator_handle<std::tuple<Tensor, Tensor, Tensor, Tensor>(
      const Tensor&, const Tensor&, const Tensor&, const Tensor&, int64_t, bool)>(
      "hybridkern::rounding_coupling_mirrored_backward");
  auto [a, b, to_t, to_beta] = op.call(first, second, t, beta, static_cast<int64_t>(options[0]), options[1] != 0);
  return {a, b, to_t, to_beta};
}

using Halves = std::tuple<Tensor, Tensor>;

template <class Self, class Out>
using Mirrored =
    Node<Self, Out(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const int64_t&, const bool&)>;

struct HalvesNode : Mirrored<HalvesNode, Halves> {
  static constexpr const char* name = "mirrored_halves";

  // Below autograd, so the halves are no views to it.
  static Halves run(const Tensor& a, const Tensor& b, const Tensor& t, const Tensor& beta, int64_t index,
                    bool lattice) {
    const Tensor z = couple(a, b, t, beta, index, lattice);
    const int64_t half = a.size(1);
    return {z.narrow(1, 0, half), z.narrow(1, half, half)};
  }

  static variable_list saves(const Given& given, const variable_list&, const Options&) { return {given[2], given[3]}; }

  static variable_list gradients(const variable_list& saved, const variable_list& grads, const Options& o) {
    const Tensor& t = saved[0];
    return coupled_gradients(rows(grads[0], t), rows(grads[1], t), t, saved[1], o);
  }
};

struct JoinedNode : Mirrored<JoinedNode, Tensor> {
  static constexpr const char* name = "mirrored_joined";
  static constexpr auto run = couple;

  static variable_list saves(const Given& given, const variable_list&, const Options&) { return {given[2], given[3]}; }

  static variable_list gradients(const variable_list& saved, const variable_list& grads, const Options& o) {
    const int64_t half = saved[0].size(1);
    const Tensor grad = rows(grads[0], saved[0]);
    return coupled_gradients(grad.narrow(1, 0, half), grad.narrow(1, half, half), saved[0], saved[1], o);
  }
};

const Registered registered = Registered::nodes<HalvesNode, JoinedNode>();

}  // namespace
}  // namespace hk::nodes::rounding_coupling_mirrored
