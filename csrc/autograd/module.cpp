// The Python module hybridkern._nodes: the operators with gradients as C++ autograd nodes.
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>
#include <torch/version.h>

#include "node.h"

namespace hk::nodes {
namespace {

PyObject* reference_rule = nullptr;  // lives as long as the interpreter

// Registered operators, called with tensors that require a gradient: an error in backward, where PyTorch's own rule is
// a warning and zeros. The nodes call them below autograd.
void refuse_derivatives(const std::vector<std::string>& operators) {
  static torch::Library library(torch::Library::IMPL, "hybridkern", c10::DispatchKey::Autograd, __FILE__, __LINE__);
  for (const std::string& name : operators)
    library.impl(name.c_str(), torch::autograd::autogradNotImplementedFallback());
}

}  // namespace

variable_list reference_gradient(const char* node, const variable_list& saved, const variable_list& grads,
                                 const Options& options, size_t tensors) {
  pybind11::gil_scoped_acquire gil;
  variable_list out(tensors);
  try {
    const auto found = pybind11::handle(reference_rule)(node, saved, grads, options).cast<pybind11::list>();
    for (size_t i = 0; i < tensors; ++i)
      if (!found[i].is_none()) out[i] = found[i].cast<Tensor>();
  } catch (pybind11::error_already_set& error) {
    error.restore();  // torch carries it through its threads as an exception of its own
    python_error carried;
    carried.persist();
    throw carried;
  }
  return out;
}

}  // namespace hk::nodes

PYBIND11_MODULE(_nodes, m) {
  namespace nodes = hk::nodes;
  m.doc() = "Autograd nodes of hybridkern's operators, for ordinary tensors and the torch named in `torch`.";
  m.attr("torch") = TORCH_VERSION;
  // What Python code raises inside a call, such as a hook of saved tensors, reaches the caller as it was raised.
  pybind11::register_local_exception_translator([](std::exception_ptr raised) {
    try {
      if (raised) std::rethrow_exception(raised);
    } catch (python_error& error) {
      error.restore();
    }
  });
  m.def(
      "set_reference_gradient",
      [](pybind11::function rule) {
        Py_XDECREF(nodes::reference_rule);
        nodes::reference_rule = rule.release().ptr();
      },
      "The function (node, saved, grads, options) that gives gradients which can be differentiated.");
  m.def("refuse_derivatives", &nodes::refuse_derivatives,
        "Make backward through these registered operators an error, where they were called directly.");
  m.def(
      "serve_cuda",
      [](const std::vector<std::string>& names) {
        for (auto& [name, served] : nodes::Registered::on_cuda())
          *served = std::find(names.begin(), names.end(), name) != names.end();
      },
      "The nodes of these operators, and no others, take CUDA tensors: their kernels are registered.");
  std::vector<PyMethodDef>& methods = nodes::Registered::all();
  methods.push_back({nullptr, nullptr, 0, nullptr});
  if (PyModule_AddFunctions(m.ptr(), methods.data()) != 0) throw pybind11::error_already_set();
}
