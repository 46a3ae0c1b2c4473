// What the autograd nodes share: when they may serve a call, and second derivatives that raise.
//
// Unlike everything else under csrc/, these files use ATen and are tied to the torch that they were built with;
// hybridkern/_extension.py loads them with that one only. They compute nothing: they call the operators.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/functions/utils.h>

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

// All numbers of a call in one list: the context keeps its values in a hash table.
inline void keep_options(AutogradContext* ctx, std::initializer_list<double> values) {
  ctx->saved_data["options"] = c10::List<double>(values);
}

inline std::vector<double> options_of(AutogradContext* ctx) { return ctx->saved_data["options"].toDoubleVector(); }

// Gradients that must not be differentiated: under create_graph=True they require grad through a node that raises,
// and that leads to whatever they were computed from.
inline variable_list once_differentiable(variable_list out, const variable_list& saved, const variable_list& grads) {
  if (!at::GradMode::is_enabled()) return out;
  const auto error = c10::make_intrusive<torch::autograd::Error>(
      "trying to differentiate twice a function that was marked with @once_differentiable",
      torch::autograd::collect_next_edges(saved, grads));
  for (Tensor& grad : out) {
    if (!grad.defined()) continue;
    grad = grad.detach();
    torch::autograd::create_gradient_edge(grad, error);
  }
  return out;
}

}  // namespace hk::nodes
