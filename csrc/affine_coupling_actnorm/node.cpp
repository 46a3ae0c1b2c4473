// Autograd node of affine_coupling_actnorm.
#include "../autograd/node.h"

namespace hk::nodes::affine_coupling_actnorm {
namespace {

using Coupled = std::tuple<Tensor, Tensor>;

struct ActnormNode
    : Node<ActnormNode, Coupled(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const int64_t&,
                                const double&, const double&, const double&, const double&, const double&)> {
  static constexpr const char* name = "affine_coupling_actnorm";

  static Coupled run(const Tensor& x, const Tensor& params, const Tensor& scale, const Tensor& offset, int64_t code,
                     double clamp, double form_offset, double eps, double gain, double shift_gain) {
    static const auto op =
        operator_handle<Coupled(const Tensor&, const Tensor&, const Tensor&, const Tensor&, int64_t, double, double,
                                double, double, double)>("hybridkern::affine_coupling_actnorm_forward");
    return op.call(x, params, scale, offset, code, clamp, form_offset, eps, gain, shift_gain);
  }

  static variable_list saves(const Given& given, const variable_list&, const Options&) {
    return {given[0], given[1], given[2]};
  }

  static variable_list gradients(const variable_list& saved, const variable_list& grads, const Options& o) {
    static const auto op = operator_handle<std::tuple<Tensor, Tensor, Tensor, Tensor>(
        const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, int64_t, double, double, double,
        double, double)>("hybridkern::affine_coupling_actnorm_backward");
    const Tensor& x = saved[0];
    const auto total = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const Tensor y = grads[0].defined() ? grads[0] : at::zeros_like(x);
    const Tensor log_det = grads[1].defined() ? grads[1] : at::zeros({x.size(0)}, x.options().dtype(total));
    auto [grad_x, params, scale, offset] =
        op.call(y, log_det, x, saved[1], saved[2], static_cast<int64_t>(o[0]), o[1], o[2], o[3], o[4], o[5]);
    return {grad_x, params, scale, offset};
  }
};

const Registered registered = Registered::nodes<ActnormNode>();

}  // namespace
}  // namespace hk::nodes::affine_coupling_actnorm
