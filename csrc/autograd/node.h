// What the autograd nodes share: when they may serve a call, and what differentiates their backward passes.
//
// Unlike everything else under csrc/, these files use ATen and are tied to the torch that they were built with;
// hybridkern/_extension.py loads them with that one only. They compute nothing: they call the operators.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/utils/pybind.h>

#include <initializer_list>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

namespace hk::nodes {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;
using OptionalPair = std::optional<std::tuple<Tensor, Tensor>>;

// An ordinary CPU tensor: no subclass, no wrapper of a functional transform.
inline bool is_ordinary(const Tensor& value) {
  using Key = c10::DispatchKey;
  constexpr c10::DispatchKeySet special({Key::Python, Key::PythonTLSSnapshot, Key::FuncTorchBatched,
                                         Key::FuncTorchGradWrapper, Key::FuncTorchVmapMode, Key::Batched,
                                         Key::Functionalize});
  return value.device().is_cpu() && !value.key_set().has_any(special);
}

inline bool is_ordinary(const OptionalTensor& value) { return !value || is_ordinary(*value); }

// Whether these tensors alone decide what a call does: no dispatch mode is on, no functional transform runs.
template <class... Tensors>
bool may_serve(const Tensors&... values) {
  return (is_ordinary(values) && ...) && !c10::impl::TorchDispatchModeTLS::any_modes_set() &&
         !c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode);
}

template <class Signature>
auto operator_handle(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").template typed<Signature>();
}

inline OptionalTensor given(const Tensor& value) { return value.defined() ? OptionalTensor(value) : std::nullopt; }

// A constant of a call stays one in its derivatives, also if it is made to require a gradient afterwards. To be called
// above ADInplaceOrView, which makes the two share their version: a write to either is then seen.
inline Tensor as_given(const Tensor& value) { return value.requires_grad() ? value : value.detach(); }

inline Tensor as_given(const OptionalTensor& value) { return value ? as_given(*value) : Tensor(); }

// All numbers of a call in one list: the context keeps its values in a hash table.
inline void keep_options(AutogradContext* ctx, std::initializer_list<double> values) {
  ctx->saved_data["options"] = c10::List<double>(values);
}

inline std::vector<double> options_of(AutogradContext* ctx) { return ctx->saved_data["options"].toDoubleVector(); }

// Whether a backward pass must be one that can be differentiated, or batched, itself: no kernel has a rule for that.
inline bool by_formulas() {
  return at::GradMode::is_enabled() ||
         c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode);
}

// The gradients of the first `tensors` arguments of a call by the formulas of the reference
// (hybridkern/ops/_autograd.py), and undefined ones for its other arguments, `arguments` in all. `options` are what
// keep_options kept.
variable_list reference_gradient(const char* node, const variable_list& saved, const variable_list& grads,
                                 const std::vector<double>& options, size_t tensors, size_t arguments);

// What CouplingForm.spec packs.
struct AffineForm {
  int64_t code;
  double clamp, offset, eps, gain, shift_gain;
};

// What an operator adds to the module hybridkern._nodes, found by the module through static objects of this class.
struct Registered {
  using Definition = void (*)(pybind11::module_&);
  explicit Registered(Definition definition) { all().push_back(definition); }
  static std::vector<Definition>& all() {
    static std::vector<Definition> list;
    return list;
  }
};

// A function that hands back nullopt where a call is not the node's (may_serve).
template <class Function>
void define(pybind11::module_& m, const char* name, Function function) {
  m.def(name, function, pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace hk::nodes
