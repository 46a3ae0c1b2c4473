// What lipswish asks of its arguments; each name is that of the schema.
#pragma once

#include "../check.h"

namespace hk {

inline Argument check_lipswish(const Tensor& x, const Tensor& b, bool paired) {
  const Argument main = main_argument("x", x, paired ? 2 : 1);
  check_one_element("b", b, main);
  return main;
}

// What has the shape of the outputs: that of x, or of two of it side by side.
inline void check_lipswish_grad(const Tensor& grad, const Argument& x, bool paired) {
  const Argument value("grad", grad);
  check_same_type(value, x);
  Shape wanted = x.shape();
  if (paired) wanted.sizes[1] *= 2;
  check_shape(value, wanted);
}

}  // namespace hk
