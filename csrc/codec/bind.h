// The codec's part of the Python module. It works on bytes and integers, without gradients: NumPy arrays, no operators.
#pragma once

#include <pybind11/pybind11.h>

namespace hk::codec {

void bind_coder(pybind11::module_& m);
void bind_network(pybind11::module_& m);

}  // namespace hk::codec
