// Autograd node of rational_quadratic_spline.
#include "../autograd/node.h"

namespace hk::nodes::rational_quadratic_spline {
namespace {

using Splined = std::tuple<Tensor, Tensor>;

// The numbers after the tensors: code, low, high, min_width, min_height, least, gain, beta.
struct SplineNode : Node<SplineNode, Splined(const Tensor&, const Tensor&, const OptionalTensor&, const int64_t&,
                                             const double&, const double&, const double&, const double&, const double&,
                                             const double&, const double&)> {
  static constexpr const char* name = "rational_quadratic_spline";

  // Whether the parameters have a batch axis, which is added otherwise.
  template <class... Spline>
  static bool fits(const Tensor& x, const Tensor& params, const OptionalTensor&, const Spline&...) {
    return x.dim() > 1 && params.dim() == (x.dim() == 2 ? 3 : x.dim());
  }

  static Splined run(const Tensor& x, const Tensor& params, const OptionalTensor& log_det, int64_t code, double low,
                     double high, double min_width, double min_height, double least, double gain, double beta) {
    static const auto op =
        operator_handle<Splined(const Tensor&, const Tensor&, const OptionalTensor&, int64_t, double, double, double,
                                double, double, double, double)>("hybridkern::rational_quadratic_spline_forward");
    return op.call(x, params, log_det, code, low, high, min_width, min_height, least, gain, beta);
  }

  // The type of log_det, which its gradient has.
  template <class... Spline>
  static double note(const Tensor&, const Tensor&, const OptionalTensor& log_det, const Spline&...) {
    return log_det ? static_cast<double>(log_det->scalar_type()) : -1;
  }

  static variable_list saves(const Given& given, const variable_list&, const Options&) { return {given[0], given[1]}; }

  static variable_list gradients(const variable_list& saved, const variable_list& grads, const Options& o) {
    static const auto op =
        operator_handle<Splined(const Tensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&, int64_t,
                                double, double, double, double, double, double, double)>(
            "hybridkern::rational_quadratic_spline_backward");
    auto [x, params] = op.call(saved[0], saved[1], given(grads[0]), given(grads[1]), static_cast<int64_t>(o[0]), o[1],
                               o[2], o[3], o[4], o[5], o[6], o[7]);
    Tensor log_det;
    if (o[8] >= 0 && grads[1].defined()) log_det = grads[1].to(static_cast<at::ScalarType>(o[8]));
    return {x, params, log_det};
  }
};

const Registered registered = Registered::nodes<SplineNode>();

}  // namespace
}  // namespace hk::nodes::rational_quadratic_spline
