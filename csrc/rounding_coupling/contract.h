// What rounding_coupling asks of its arguments, on CPUs and GPUs; each name is that of the schema.
#pragma once

#include "../check.h"

namespace hk {

// Of rounding_coupling: `name` is x, or its gradient.
inline void check_rounding(const char* name, const Tensor& x, const Tensor& t, const std::optional<Tensor>& beta) {
  const Argument main = main_argument(name, x, 1), value("t", t);
  check_param(value, main);
  check_shape_of(value, main);
  if (beta) check_one_element("beta", *beta, main);
}

}  // namespace hk
