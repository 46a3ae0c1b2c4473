// What the operators with a CPU and a CUDA kernel ask of their arguments; each name is that of the schema.
#pragma once

#include "affine_coupling/spec.h"
#include "check.h"

namespace hk {

inline void check_coupling(const Argument& x, const Tensor& params, int64_t code) {
  check_code(code);
  const Argument value("params", params);
  check_param(value, x);
  Shape wanted = x.shape();
  if (CouplingSpec(code, 0).has_scale()) wanted.sizes[1] *= 2;
  check_shape(value, wanted);
}

inline void check_coupling_forward(const Tensor& x, const Tensor& params, const std::optional<Tensor>& log_det,
                                   int64_t code) {
  const Argument main = main_argument("x", x, 2);
  check_coupling(main, params, code);
  check_totals("log_det", log_det, main);
}

inline void check_coupling_backward(const char* name, const Tensor& known, const Tensor& params,
                                    const std::optional<Tensor>& grad_y, const std::optional<Tensor>& grad_log_det,
                                    int64_t code) {
  const Argument main = main_argument(name, known, 2);
  check_coupling(main, params, code);
  if (grad_y) check_like("grad_y", *grad_y, main);
  check_totals("grad_log_det", grad_log_det, main);
}

// Of rounding_coupling: `name` is x, or its gradient.
inline void check_rounding(const char* name, const Tensor& x, const Tensor& t, const std::optional<Tensor>& beta) {
  const Argument main = main_argument(name, x, 1), value("t", t);
  check_param(value, main);
  check_shape_of(value, main);
  if (beta) check_one_element("beta", *beta, main);
}

inline void check_bin_width(double width) { check_range("bin_width", width, 1e-6, 1e6); }

// A parameter of a density: of that shape, or with 1 in the place of the batch.
inline void check_shared_shape(const Argument& value, Shape wanted) {
  if (value.has(wanted)) return;
  const std::string full = text_of(wanted);
  wanted.sizes[0] = 1;
  if (!value.has(wanted)) refuse(value.name, "shape " + text_of(value.shape()), full + " or " + text_of(wanted));
}

inline void check_shared_param(const Argument& value, const Argument& x) {
  check_param(value, x);
  if (!value.has_shape_of(x)) check_shared_shape(value, x.shape());
}

inline void check_logistic(const Argument& x, const Tensor& mean, const Tensor& log_scale, double bin_width) {
  check_bin_width(bin_width);
  const Argument location("mean", mean), scale("log_scale", log_scale);
  check_shared_param(location, x);
  check_param(scale, x);
  check_shape_of(scale, location);
}

// The gradient of what a density returned: a number for each example, or for each element.
inline void check_density_grad(const Tensor& grad, const Argument& x, bool reduce) {
  if (reduce)
    check_totals("grad", grad, x);
  else
    check_like("grad", grad, x);
}

}  // namespace hk
