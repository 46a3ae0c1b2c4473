// What affine_coupling asks of its arguments, on CPUs and GPUs; each name is that of the schema.
#pragma once

#include "../check.h"
#include "spec.h"

namespace hk {

inline void check_coupling(const Argument& x, const Tensor& params, int64_t code, const FormNumbers& numbers) {
  check_form(code, numbers);
  const Argument value("params", params);
  check_param(value, x);
  Shape wanted = x.shape();
  if (has_scale(code)) wanted.sizes[1] *= 2;
  check_shape(value, wanted);
}

inline void check_coupling_forward(const Tensor& x, const Tensor& params, const std::optional<Tensor>& log_det,
                                   int64_t code, const FormNumbers& numbers) {
  const Argument main = main_argument("x", x, 2);
  check_coupling(main, params, code, numbers);
  check_totals("log_det", log_det, main);
}

inline void check_coupling_backward(const char* name, const Tensor& known, const Tensor& params,
                                    const std::optional<Tensor>& grad_y, const std::optional<Tensor>& grad_log_det,
                                    int64_t code, const FormNumbers& numbers) {
  const Argument main = main_argument(name, known, 2);
  check_coupling(main, params, code, numbers);
  if (grad_y) check_like("grad_y", *grad_y, main);
  check_totals("grad_log_det", grad_log_det, main);
}

}  // namespace hk
