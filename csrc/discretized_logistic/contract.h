// What a density asks of its arguments, on CPUs and GPUs; each name is that of the schema.
#pragma once

#include "../check.h"

namespace hk {

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
