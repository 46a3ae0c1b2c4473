// Autograd node of affine_coupling_actnorm.
#include "../affine_coupling/arguments.h"

namespace hk::nodes::affine_coupling_actnorm {
namespace {

using Coupled = std::tuple<Tensor, Tensor>;

struct ActnormNode : Node<ActnormNode, Coupled(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                               const int64_t&, const FormNumbers&)> {
  static constexpr const char* name = "affine_coupling_actnorm";

  static Coupled run(const Tensor& x, const Tensor& params, const Tensor& scale, const Tensor& offset, int64_t code,
                     const FormNumbers& numbers) {
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow("hybridkern::affine_coupling_actnorm_forward", "");
    return call_boxed<Coupled>(op, {x, params, scale, offset, code, as_list(numbers.data())});
  }

  static variable_list saves(const Given& given, const variable_list&, const Options&) {
    return {given[0], given[1], given[2]};
  }

  static variable_list gradients(const variable_list& saved, const variable_list& grads, const Options& o) {
    using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow("hybridkern::affine_coupling_actnorm_backward", "");
    const Tensor& x = saved[0];
    const auto total = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const Tensor y = grads[0].defined() ? grads[0] : at::zeros_like(x);
    const Tensor log_det = grads[1].defined() ? grads[1] : at::zeros({x.size(0)}, x.options().dtype(total));
    auto [grad_x, params, scale, offset] = call_boxed<Gradients>(
        op, {y, log_det, x, saved[1], saved[2], static_cast<int64_t>(o[0]), as_list(o.data() + 1)});
    return {grad_x, params, scale, offset};
  }
};

const Registered registered = Registered::nodes<ActnormNode>();

}  // namespace
}  // namespace hk::nodes::affine_coupling_actnorm
