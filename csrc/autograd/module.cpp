// The Python module hybridkern._nodes: the operators with gradients as C++ autograd nodes.
#include <torch/csrc/utils/pybind.h>
#include <torch/version.h>

#include "nodes.h"

PYBIND11_MODULE(_nodes, m) {
  namespace nodes = hk::nodes;
  m.doc() = "Autograd nodes of hybridkern's operators, for ordinary CPU tensors and the torch named in `torch`.";
  m.attr("torch") = TORCH_VERSION;
  const auto release = pybind11::call_guard<pybind11::gil_scoped_release>();
  m.def("affine_coupling", &nodes::affine_coupling, release);
  m.def("affine_coupling_actnorm", &nodes::affine_coupling_actnorm, release);
  m.def("rounding_coupling", &nodes::rounding_coupling, release);
  m.def("mirrored_halves", &nodes::mirrored_halves, release);
  m.def("mirrored_joined", &nodes::mirrored_joined, release);
  m.def("mirrored_with_prior", &nodes::mirrored_with_prior, release);
  m.def("discretized_logistic", &nodes::discretized_logistic, release);
  m.def("discretized_logistic_mixture", &nodes::discretized_logistic_mixture, release);
  m.def("gaussian_log_prob", &nodes::gaussian_log_prob, release);
}
