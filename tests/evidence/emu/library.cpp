// Schemas of the .cu files compiled as an operator library for CPU tensors: hybridkern_emulated, with the schemas of
// hybridkern.
#include "cuda/runtime.h"

STABLE_TORCH_LIBRARY(hybridkern_emulated, m) {
  m.def(
      "affine_coupling_forward(Tensor x, Tensor params, Tensor? log_det, int code, float[8] "
      "numbers) -> (Tensor, Tensor)");
  m.def(
      "affine_coupling_backward(Tensor known, Tensor params, Tensor? grad_y, Tensor? grad_log_det, int code, "
      "float[8] numbers, bool known_is_output=False) -> (Tensor, Tensor)");
  m.def(
      "affine_coupling_backward_from_output(Tensor y, Tensor params, Tensor? grad_y, Tensor? grad_log_det, int code, "
      "float[8] numbers) -> (Tensor, Tensor, Tensor)");
  m.def("rounding_coupling_forward(Tensor x, Tensor t, Tensor? beta, bool inverse) -> Tensor");
  m.def("rounding_coupling_backward(Tensor grad, Tensor t, Tensor beta, bool inverse) -> (Tensor, Tensor)");
  m.def(
      "discretized_logistic_forward(Tensor x, Tensor mean, Tensor log_scale, float bin_width, bool reduce) -> Tensor");
  m.def(
      "discretized_logistic_backward(Tensor grad, Tensor x, Tensor mean, Tensor log_scale, float bin_width, bool "
      "reduce) -> (Tensor, Tensor, Tensor)");
}

// Launches so far, so that a test can tell that it ran these kernels.
extern "C" unsigned long hybridkern_emulated_launches() { return hk::shim::launches; }

// From here on, launches are handed over; nullptr: they run on fibers again.
extern "C" void hybridkern_emulated_set_launcher(hk::shim::Launcher launcher) { hk::shim::launcher = launcher; }
