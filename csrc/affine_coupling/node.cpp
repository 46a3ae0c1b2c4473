// Autograd node of affine_coupling.
#include "arguments.h"

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

struct AffineNode : Node<AffineNode, Coupled(const Tensor&, const Tensor&, const OptionalTensor&, const int64_t&,
                                             const FormNumbers&)> {
  static constexpr const char* name = "affine_coupling";

  static Coupled run(const Tensor& x, const Tensor& params, const OptionalTensor& log_det, int64_t code,
                     const FormNumbers& numbers) {
    static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("hybridkern::affine_coupling_forward", "");
    return call_boxed<Coupled>(op, {x, params, log_det, code, as_list(numbers.data())});
  }

  // The type of log_det, which its gradient has.
  static double note(const Tensor&, const Tensor&, const OptionalTensor& log_det, int64_t, const FormNumbers&) {
    return log_det ? static_cast<double>(log_det->scalar_type()) : -1;
  }

  static variable_list saves(const Given& given, const variable_list& out, const Options& options) {
    return {keeps_output(given[0], options) ? out[0] : given[0], given[1]};
  }

  static variable_list gradients(const variable_list& saved, const variable_list& grads, const Options& o) {
    static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("hybridkern::affine_coupling_backward", "");
    auto [x, params] =
        call_boxed<Coupled>(op, {saved[0], saved[1], given(grads[0]), given(grads[1]), static_cast<int64_t>(o[0]),
                                 as_list(o.data() + 1), keeps_output(saved[0], o)});
    const double type = o[1 + form_numbers];
    Tensor log_det;
    if (type >= 0 && grads[1].defined()) log_det = grads[1].to(static_cast<at::ScalarType>(type));
    return {x, params, log_det};
  }
};

const Registered registered = Registered::nodes<AffineNode>();

}  // namespace
}  // namespace hk::nodes::affine_coupling
