// What the autograd nodes share: what they take from Python, when they serve a call, and what differentiates their
// backward passes.
//
// Unlike everything else under csrc/, these files use ATen and are tied to the torch that they were built with;
// hybridkern/_extension.py loads them with that one only. They compute nothing: they call the operators.
#pragma once

#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace hk::nodes {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;

template <class T>
inline constexpr bool is_tensor = std::is_same_v<T, Tensor> || std::is_same_v<T, OptionalTensor>;

// An ordinary tensor on a CPU or a GPU: no subclass, no wrapper of a functional transform, no tangent of forward mode.
inline bool is_ordinary(const Tensor& value) {
  using Key = c10::DispatchKey;
  constexpr c10::DispatchKeySet special({Key::Python, Key::PythonTLSSnapshot, Key::FuncTorchBatched,
                                         Key::FuncTorchGradWrapper, Key::FuncTorchVmapMode, Key::Batched,
                                         Key::Functionalize, Key::ZeroTensor});
  return (value.is_cpu() || value.is_cuda()) && value.layout() == at::kStrided && !value.key_set().has_any(special) &&
         !value._fw_grad(0).defined();
}

// Whether the tensors alone decide what a call does: no dispatch mode is on, nothing transforms or traces it.
inline bool is_plain_call() {
  using Key = c10::DispatchKey;
  return !c10::impl::TorchDispatchModeTLS::any_modes_set() &&
         !c10::impl::tls_is_dispatch_key_included(Key::FuncTorchDynamicLayerFrontMode) &&
         !c10::impl::tls_is_dispatch_key_included(Key::Tracer);
}

// An argument as Python gives it; false where the call is not a node's.
inline bool take(PyObject* from, Tensor& to) {
  if (!THPVariable_CheckExact(from)) return false;
  to = THPVariable_Unpack(from);
  return is_ordinary(to);
}

inline bool take(PyObject* from, OptionalTensor& to) { return from == Py_None || take(from, to.emplace()); }

inline bool take(PyObject* from, bool& to) {
  to = from == Py_True;
  return to || from == Py_False;
}

inline bool take(PyObject* from, int64_t& to) {
  if (!PyLong_CheckExact(from)) return false;
  int overflow = 0;
  to = PyLong_AsLongLongAndOverflow(from, &overflow);
  return overflow == 0;
}

inline bool take(PyObject* from, double& to) {
  if (!PyFloat_Check(from)) return false;
  to = PyFloat_AsDouble(from);
  return true;
}

// A tuple of that many floats, read as it lies.
template <size_t count>
bool take(PyObject* from, std::array<double, count>& to) {
  if (!PyTuple_Check(from) || PyTuple_GET_SIZE(from) != count) return false;
  for (size_t i = 0; i < count; ++i)
    if (!take(PyTuple_GET_ITEM(from, i), to[i])) return false;
  return true;
}

// Under autocast a low-precision main tensor is widened first, by hybridkern/ops.
inline bool is_widened(const Tensor& main) {
  return (main.scalar_type() == at::kBFloat16 || main.scalar_type() == at::kHalf) &&
         at::autocast::is_autocast_enabled(main.device().type());
}

inline PyObject* to_python(const variable_list& values) {
  PyObject* out = PyTuple_New(static_cast<Py_ssize_t>(values.size()));
  for (size_t i = 0; out && i < values.size(); ++i)
    PyTuple_SET_ITEM(out, static_cast<Py_ssize_t>(i), THPVariable_Wrap(values[i]));
  return out;
}

inline OptionalTensor given(const Tensor& value) { return value.defined() ? OptionalTensor(value) : std::nullopt; }
inline bool needs_grad(const Tensor& value) { return value.requires_grad(); }
inline bool needs_grad(const OptionalTensor& value) { return value && value->requires_grad(); }
template <class T>
bool needs_grad(const T&) {
  return false;
}

// Whether a parameter has the shape of x, or is one row for all examples.
inline bool fits_rows(const Tensor& value, const Tensor& x) {
  return value.dim() == x.dim() && value.dim() > 0 && (value.size(0) == 1 || value.size(0) == x.size(0)) &&
         value.sizes().slice(1) == x.sizes().slice(1);
}

template <class Signature>
auto operator_handle(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").template typed<Signature>();
}

// A constant of a call stays one in its derivatives, also if it is made to require a gradient afterwards. To be called
// above ADInplaceOrView, which makes the two share their version: a write to either is then seen.
inline Tensor as_given(const Tensor& value) { return value.requires_grad() ? value : value.detach(); }
inline Tensor as_given(const OptionalTensor& value) { return value ? as_given(*value) : Tensor(); }

using Options = std::vector<double>;

template <class T>
void add_option(Options& options, const T& value) {
  if constexpr (!is_tensor<T>) options.push_back(static_cast<double>(value));
}

template <size_t count>
void add_option(Options& options, const std::array<double, count>& values) {
  options.insert(options.end(), values.begin(), values.end());
}

// Whether a backward pass must be one that can be differentiated, or batched, itself: no kernel has a rule for that.
inline bool by_formulas() {
  return at::GradMode::is_enabled() ||
         c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode);
}

// The gradients of the `tensors` arguments of a call that are tensors by the formulas of the reference
// (hybridkern/ops/_autograd.py). `options` are the others, as numbers.
variable_list reference_gradient(const char* node, const variable_list& saved, const variable_list& grads,
                                 const Options& options, size_t tensors);

// The node of an operator. Its arguments are In, tensors first. `Self` has
//   name                      of the node in Python
//   Out run(in...)            the kernel's call, below autograd
//   variable_list saves(given, out, options)  what is kept, of the tensors of the call and its outputs
//   variable_list gradients(saved, grads, options)   of the tensors of the call, by the kernel
// and may have
//   bool fits(in...)          whether the arguments have the shapes of the kernel, where the public function widens
//   them
//   double note(in...)        one more number for `options`
//   Out unrecorded(in...)     the kernel's call where nothing need be saved
//   size_t returns            how many outputs of the kernel the call returns: the others are there to be saved
template <class Self, class Signature>
struct Node;

template <class Self, class Out, class... In>
struct Node<Self, Out(const In&...)> : torch::autograd::Function<Self> {
  static constexpr bool is_traceable = true;
  static constexpr size_t tensors = (0 + ... + (is_tensor<In> ? 1 : 0));
  static constexpr size_t returns = ~size_t{0};
  static inline bool on_cuda = false;  // whether its kernels serve CUDA tensors, as hybridkern/ops/_gpu.py finds them
  using Given = std::array<Tensor, tensors>;

  static bool fits(const In&...) { return true; }
  static double note(const In&...) { return 0; }
  static Out unrecorded(const In&... in) { return Self::run(in...); }
  static variable_list recorded_gradients(const variable_list& saved, const variable_list& grads,
                                          const Options& options) {
    return reference_gradient(Self::name, saved, grads, options, tensors);
  }

  static variable_list forward(AutogradContext* ctx, const In&... in) {
    Given tensors_given;
    size_t place = 0;
    (
        [&] {
          if constexpr (is_tensor<In>) tensors_given[place++] = as_given(in);
        }(),
        ...);
    Options options;
    (add_option(options, in), ...);
    options.push_back(Self::note(in...));
    for (const Tensor& value : tensors_given) options.push_back(value.defined());
    at::AutoDispatchBelowADInplaceOrView below;
    variable_list out = listed(Self::run(in...));
    ctx->save_for_backward(Self::saves(tensors_given, out, options));
    ctx->saved_data["options"] = c10::List<double>(c10::ArrayRef<double>(options));
    ctx->set_materialize_grads(false);
    out.resize(std::min(out.size(), Self::returns));
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    if (std::none_of(grads.begin(), grads.end(), [](const Tensor& grad) { return grad.defined(); }))
      return variable_list(sizeof...(In));
    const variable_list saved = ctx->get_saved_variables();
    const Options options = ctx->saved_data["options"].toDoubleVector();
    variable_list found =
        by_formulas() ? Self::recorded_gradients(saved, grads, options) : Self::gradients(saved, grads, options);
    found.resize(sizeof...(In));
    for (size_t i = 0; i < tensors; ++i)
      if (options[options.size() - tensors + i] == 0) found[i] = Tensor();  // not given, so it has none
    return found;
  }

  // The method of the Python module: the outputs, or None where the call is not the node's. Where the kernel refuses
  // its arguments, Python has the better words.
  static PyObject* method(PyObject*, PyObject* const* args, Py_ssize_t count) {
    HANDLE_TH_ERRORS
    return count == sizeof...(In) ? serve(args, std::index_sequence_for<In...>{}) : Py_NewRef(Py_None);
    END_HANDLE_TH_ERRORS
  }

 private:
  static variable_list listed(const Tensor& out) { return {out}; }
  static const variable_list& listed(const variable_list& out) { return out; }
  template <class... T>
  static variable_list listed(const std::tuple<T...>& out) {
    return std::apply([](const auto&... each) { return variable_list{each...}; }, out);
  }

  template <size_t... I>
  static PyObject* serve(PyObject* const* args, std::index_sequence<I...>) {
    std::tuple<In...> in;
    const Tensor& main = std::get<0>(in);
    if (!is_plain_call() || !(take(args[I], std::get<I>(in)) && ...) || (main.is_cuda() && !on_cuda) ||
        is_widened(main) || !Self::fits(std::get<I>(in)...))
      return Py_NewRef(Py_None);
    variable_list out;
    try {
      pybind11::gil_scoped_release others;
      if (at::GradMode::is_enabled() && (needs_grad(std::get<I>(in)) || ...)) {
        out = Self::apply(std::get<I>(in)...);
      } else {
        at::AutoDispatchBelowADInplaceOrView below;
        out = listed(Self::unrecorded(std::get<I>(in)...));
      }
    } catch (const python_error&) {
      throw;  // of a hook of saved tensors
    } catch (const std::exception&) {
      return Py_NewRef(Py_None);
    }
    return std::is_same_v<Out, Tensor> || Self::returns == 1 ? THPVariable_Wrap(out[0]) : to_python(out);
  }
};

// What an operator adds to the module hybridkern._nodes, found by the module through static objects of this class.
struct Registered {
  template <class... Nodes>
  static Registered nodes() {
    (all().push_back({Nodes::name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&Nodes::method)),
                      METH_FASTCALL, nullptr}),
     ...);
    ((on_cuda()[Nodes::name] = &Nodes::on_cuda), ...);
    return {};
  }
  static std::map<std::string, bool*>& on_cuda() {
    static std::map<std::string, bool*> by_name;
    return by_name;
  }
  static std::vector<PyMethodDef>& all() {
    static std::vector<PyMethodDef> list;
    return list;
  }
};

}  // namespace hk::nodes
