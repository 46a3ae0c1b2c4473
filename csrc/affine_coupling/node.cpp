// Autograd node of affine_coupling.
#include "../autograd/node.h"

namespace hk::nodes::affine_coupling {
namespace {

// Whether y = (x + t)*s, by CouplingForm.code; its derivative in the raw scale then holds y itself, so neither x nor t
// need be read again. A rounded y would cost low-precision gradients a digit.
bool keeps_output(const Tensor& known, const Options& options) {
  const int64_t code = static_cast<int64_t>(options[0]);
  const bool before = ((code >> 4) & 15) != 0, inverse = (code >> 13) & 1;
  const bool low = known.scalar_type() == at::kBFloat16 || known.scalar_type() == at::kHalf;
  return (code & 15) != 0 && before != inverse && !low;
}

using Coupled = std::tuple<Tensor, Tensor>;

struct AffineNode
    : Node<AffineNode, Coupled(const Tensor&, const Tensor&, const OptionalTensor&, const int64_t&, const double&,
                               const double&, const double&, const double&, const double&)> {
  static constexpr const char* name = "affine_coupling";

  static Coupled run(const Tensor& x, const Tensor& params, const OptionalTensor& log_det, int64_t code, double clamp,
                     double offset, double eps, double gain, double shift_gain) {
    static const auto op =
        operator_handle<Coupled(const Tensor&, const Tensor&, const OptionalTensor&, int64_t, double, double, double,
                                double, double)>("hybridkern::affine_coupling_forward");
    return op.call(x, params, log_det, code, clamp, offset, eps, gain, shift_gain);
  }

  // The type of log_det, which its gradient has.
  template <class... Form>
  static double note(const Tensor&, const Tensor&, const OptionalTensor& log_det, const Form&...) {
    return log_det ? static_cast<double>(log_det->scalar_type()) : -1;
  }

  static variable_list saves(const Given& given, const variable_list& out, const Options& options) {
    return {keeps_output(given[0], options) ? out[0] : given[0], given[1]};
  }

  static variable_list gradients(const variable_list& saved, const variable_list& grads, const Options& o) {
    static const auto op =
        operator_handle<Coupled(const Tensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&, int64_t,
                                double, double, double, double, double, bool)>("hybridkern::affine_coupling_backward");
    auto [x, params] = op.call(saved[0], saved[1], given(grads[0]), given(grads[1]), static_cast<int64_t>(o[0]), o[1],
                               o[2], o[3], o[4], o[5], keeps_output(saved[0], o));
    Tensor log_det;
    if (o[6] >= 0 && grads[1].defined()) log_det = grads[1].to(static_cast<at::ScalarType>(o[6]));
    return {x, params, log_det};
  }
};

const Registered registered = Registered::nodes<AffineNode>();

}  // namespace
}  // namespace hk::nodes::affine_coupling
