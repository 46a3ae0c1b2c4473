// Autograd node of discretized_logistic.
#include "../autograd/node.h"

namespace hk::nodes::discretized_logistic {
namespace {

struct LogisticNode
    : Node<LogisticNode, Tensor(const Tensor&, const Tensor&, const Tensor&, const double&, const bool&)> {
  static constexpr const char* name = "discretized_logistic";

  static bool fits(const Tensor& x, const Tensor& mean, const Tensor& log_scale, const double&, const bool&) {
    return fits_rows(mean, x) && log_scale.sizes() == mean.sizes();
  }

  static Tensor run(const Tensor& x, const Tensor& mean, const Tensor& log_scale, double bin_width, bool reduce) {
    static const auto op = operator_handle<Tensor(const Tensor&, const Tensor&, const Tensor&, double, bool)>(
        "hybridkern::discretized_logistic_forward");
    return op.call(x, mean, log_scale, bin_width, reduce);
  }

  static variable_list saves(const Given& given, const variable_list&, const Options&) {
    return {given[0], given[1], given[2]};
  }

  static variable_list gradients(const variable_list& saved, const variable_list& grads, const Options& o) {
    static const auto op =
        operator_handle<std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                                           double, bool)>("hybridkern::discretized_logistic_backward");
    auto [x, mean, log_scale] = op.call(grads[0], saved[0], saved[1], saved[2], o[0], o[1] != 0);
    return {x, mean, log_scale};
  }
};

const Registered registered = Registered::nodes<LogisticNode>();

}  // namespace
}  // namespace hk::nodes::discretized_logistic
