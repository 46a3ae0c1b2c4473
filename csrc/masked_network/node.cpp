// Autograd node of masked_network. Its lists of tensors have any length, so it is none of the template's (node.h).
#include "../autograd/node.h"

namespace hk::nodes::masked_network {
namespace {

using Tensors = std::vector<Tensor>;
constexpr const char* node_name = "masked_network";

struct Given {
  Tensor x;
  Tensors weights, biases, masks;
  std::vector<int64_t> plan;
  int64_t activation = 0;

  bool fits() const { return biases.size() == weights.size() && masks.size() == weights.size() && !weights.empty(); }
  bool needs_gradient() const {
    const auto needs = [](const Tensor& value) { return value.requires_grad(); };
    return x.requires_grad() || std::any_of(weights.begin(), weights.end(), needs) ||
           std::any_of(biases.begin(), biases.end(), needs);
  }
};

std::tuple<Tensor, Tensor> run(const Given& in, bool save) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("hybridkern::masked_network_forward", "");
  torch::jit::Stack stack{in.x, in.weights, in.biases, in.masks, in.plan, in.activation, save};
  op.callBoxed(stack);
  return {std::move(stack[0]).toTensor(), std::move(stack[1]).toTensor()};
}

// The tensors that a gradient may be asked for come first: those of x, weights and biases.
struct MaskedNetworkNode : torch::autograd::Function<MaskedNetworkNode> {
  static constexpr bool is_traceable = true;

  static Tensor forward(AutogradContext* ctx, const Tensor& x, at::TensorList weights, at::TensorList biases,
                        const Given& in) {
    variable_list saved{as_given(x)};
    for (const at::TensorList list : {weights, biases})
      for (const Tensor& value : list) saved.push_back(as_given(value));
    saved.insert(saved.end(), in.masks.begin(), in.masks.end());
    at::AutoDispatchBelowADInplaceOrView below;
    auto [out, hidden] = run(in, true);
    saved.push_back(hidden);
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["plan"] = in.plan;
    ctx->saved_data["activation"] = in.activation;
    ctx->set_materialize_grads(false);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const std::vector<int64_t> plan = ctx->saved_data["plan"].toIntVector();
    const int64_t activation = ctx->saved_data["activation"].toInt();
    const size_t layers = plan.size();
    variable_list out(2 + 2 * layers);  // the last is no tensor
    if (!grads[0].defined()) return out;
    variable_list saved = ctx->get_saved_variables();
    const Tensor hidden = saved.back();
    saved.pop_back();
    if (by_formulas()) return by_reference(std::move(saved), plan, activation, grads);
    const auto list = [&](size_t i) {
      const auto begin = saved.begin() + static_cast<int64_t>(1 + i * layers);
      return Tensors(begin, begin + static_cast<int64_t>(layers));
    };
    const bool wants_x = ctx->needs_input_grad(0);
    static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("hybridkern::masked_network_backward", "");
    torch::jit::Stack stack{grads[0], saved[0], hidden, list(0), list(1), list(2), plan, activation, wants_x};
    at::AutoDispatchBelowADInplaceOrView below;
    op.callBoxed(stack);
    if (wants_x) out[0] = std::move(stack[0]).toTensor();
    for (size_t part = 0; part < 2; ++part) {
      Tensors found = std::move(stack[1 + part]).toTensorVector();
      std::move(found.begin(), found.end(), out.begin() + static_cast<int64_t>(1 + part * layers));
    }
    return out;
  }

 private:
  static variable_list by_reference(variable_list saved, const std::vector<int64_t>& plan, int64_t activation,
                                    const variable_list& grads) {
    for (size_t i = 1 + 2 * plan.size(); i < saved.size(); ++i) saved[i] = saved[i].detach();  // masks are constants
    Options options{static_cast<double>(activation)};
    options.insert(options.end(), plan.begin(), plan.end());
    const size_t tensors = saved.size();
    variable_list out = reference_gradient(node_name, saved, grads, options, tensors);
    out.resize(1 + 2 * plan.size());
    out.emplace_back();
    return out;
  }
};

bool take_list(PyObject* from, Tensors& to) {
  if (!PyTuple_Check(from)) return false;
  to.resize(PyTuple_GET_SIZE(from));
  for (size_t i = 0; i < to.size(); ++i)
    if (!take(PyTuple_GET_ITEM(from, i), to[i])) return false;
  return true;
}

bool take_list(PyObject* from, std::vector<int64_t>& to) {
  if (!PyTuple_Check(from)) return false;
  to.resize(PyTuple_GET_SIZE(from));
  for (size_t i = 0; i < to.size(); ++i)
    if (!take(PyTuple_GET_ITEM(from, i), to[i])) return false;
  return true;
}

struct MaskedNode {
  static constexpr const char* name = node_name;
  static inline bool on_cuda = false;  // as of Node
  static PyObject* method(PyObject*, PyObject* const* args, Py_ssize_t count);
};

// (x, weights, biases, masks, plan, activation): the outputs, or None where the call is not the node's.
PyObject* MaskedNode::method(PyObject*, PyObject* const* args, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  Given in;
  if (count != 6 || !is_plain_call() || !take(args[0], in.x) || !take_list(args[1], in.weights) ||
      !take_list(args[2], in.biases) || !take_list(args[3], in.masks) || !take_list(args[4], in.plan) ||
      !take(args[5], in.activation) || !in.fits() || is_widened(in.x) || (in.x.is_cuda() && !on_cuda))
    return Py_NewRef(Py_None);
  if (std::any_of(in.masks.begin(), in.masks.end(), [](const Tensor& mask) { return mask.requires_grad(); }))
    return Py_NewRef(Py_None);
  Tensor out;
  try {
    pybind11::gil_scoped_release others;
    if (at::GradMode::is_enabled() && in.needs_gradient()) {
      out = MaskedNetworkNode::apply(in.x, at::TensorList(in.weights), at::TensorList(in.biases), in);
    } else {
      at::AutoDispatchBelowADInplaceOrView below;
      out = std::get<0>(run(in, false));
    }
  } catch (const python_error&) {
    throw;  // of a hook of saved tensors
  } catch (const std::exception&) {
    return Py_NewRef(Py_None);
  }
  return THPVariable_Wrap(out);
  END_HANDLE_TH_ERRORS
}

const Registered registered = Registered::nodes<MaskedNode>();

}  // namespace
}  // namespace hk::nodes::masked_network
