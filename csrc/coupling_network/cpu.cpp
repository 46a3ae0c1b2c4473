// coupling_network: forward and backward. Contract: hybridkern/ops.
#include <cstring>
#include <tuple>

#include "../check.h"
#include "../cpu/operand.h"
#include "network.h"

namespace hk {
namespace {

using network::Network;
using network::Slices;

const network::Kernels& kernels_for(const Tensor& x, bool bf16) {
  if (is_double(x)) return network::baseline_double_kernels();
  return bf16 ? network::bf16_kernels() : network::float_kernels();
}

network::Image image_of(const Tensor& tensor) {
  return {tensor.const_data_ptr(), tensor.stride(0), tensor.stride(1), tensor.stride(2), tensor.stride(3)};
}

network::Filter filter_of(const Tensor& w) { return {w.stride(0), w.stride(1), w.stride(2), w.stride(3)}; }

// Weights as the kernels read them: those of the 3x3 convolutions in any layout.
struct Weights {
  Tensor w1, b1, w2, b2, w3, b3;
};

Network network_of(const Tensor& x, const Weights& w) {
  Network net{.in = x.size(1),
              .hidden = w.w1.size(0),
              .out = w.w3.size(0),
              .slices = Slices(x.size(0), x.size(2), x.size(3)),
              .x = image_of(x)};
  net.w1 = w.w1.const_data_ptr(), net.b1 = w.b1.const_data_ptr();
  net.w2 = w.w2.const_data_ptr(), net.b2 = w.b2.const_data_ptr();
  net.w3 = w.w3.const_data_ptr(), net.b3 = w.b3.const_data_ptr();
  net.at1 = filter_of(w.w1), net.at3 = filter_of(w.w3);
  return net;
}

// (B, C, H, W) and three layers, with a channel each at least; returns x.
Argument check_network(const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2,
                       const Tensor& w3, const Tensor& b3) {
  const Argument main = working_argument("x", x, 4), first("w1", w1), last("w3", w3);
  const int64_t channels = main.sizes[1];
  const auto is_empty = [](const Argument& weight) { return weight.dims < 1 || weight.sizes[0] < 1; };
  if (channels < 1) refuse("x", "shape " + text_of(main.shape()), "(B, C, H, W) with a channel at least");
  for (const Argument& weight : {first, last})
    if (is_empty(weight)) refuse(weight.name, "shape " + text_of(weight.shape()), "an output channel at least");
  const int64_t hidden = first.sizes[0], out = last.sizes[0];
  check_exactly("w1", w1, main, {4, {hidden, channels, 3, 3}});
  check_exactly("b1", b1, main, {1, {hidden}});
  check_exactly("w2", w2, main, {4, {hidden, hidden, 1, 1}});
  check_exactly("b2", b2, main, {1, {hidden}});
  check_exactly("w3", w3, main, {4, {out, hidden, 3, 3}});
  check_exactly("b3", b3, main, {1, {out}});
  return main;
}

// What forward kept, or nothing at all: then it is computed again.
void check_hidden(const char* name, const Tensor& tensor, const Network& net, ScalarType type, bool kept) {
  const Argument value(name, tensor);
  if (!kept && value.dims == 3 && value.sizes[0] == 0) return;
  const int64_t padded = (net.hidden + network::side - 1) / network::side * network::side;
  if (value.type != type) refuse(name, "dtype " + text_of(value.type), text_of(type) + ", as forward made it");
  check_shape(value, {3, {net.slices.count, net.slices.blocks * network::side, padded}});
  if (!tensor.is_contiguous()) refuse(name, "strides with gaps", "a contiguous tensor");
}

Tensor dense(const Tensor& tensor) { return torch::stable::contiguous(tensor); }

Tensor empty_hidden(const Network& net, bool save, ScalarType type) {
  const int64_t padded = (net.hidden + network::side - 1) / network::side * network::side;
  const int64_t sizes[] = {save ? net.slices.count : 0, net.slices.blocks * network::side, padded};
  return empty_tensor(sizes, 3, type);
}

std::tuple<Tensor, Tensor, Tensor> coupling_network_forward(const Tensor& x, const Tensor& w1, const Tensor& b1,
                                                            const Tensor& w2, const Tensor& b2, const Tensor& w3,
                                                            const Tensor& b3, bool bf16, bool save_hidden) {
  check_network(x, w1, b1, w2, b2, w3, b3);
  const Weights weights{w1, dense(b1), dense(w2), dense(b2), w3, dense(b3)};
  Network net = network_of(x, weights);
  const ScalarType kept = bf16 && !is_double(x) ? ScalarType::BFloat16 : x.scalar_type();
  Tensor params = empty_channels_last({x.size(0), net.out, x.size(2), x.size(3)}, x.scalar_type());
  Tensor hidden1 = empty_hidden(net, save_hidden, kept), hidden2 = empty_hidden(net, save_hidden, kept);
  if (x.size(0) * x.size(2) * x.size(3) > 0) {
    net.params = params.mutable_data_ptr();
    if (save_hidden) net.hidden1 = hidden1.mutable_data_ptr(), net.hidden2 = hidden2.mutable_data_ptr();
    kernels_for(x, bf16).forward(net);
  }
  return {params, hidden1, hidden2};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> coupling_network_backward(
    const Tensor& grad, const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2,
    const Tensor& w3, const Tensor& b3, const Tensor& hidden1, const Tensor& hidden2, bool bf16, bool wants_x) {
  const Argument main = check_network(x, w1, b1, w2, b2, w3, b3);
  check_exactly("grad", grad, main, {4, {x.size(0), w3.size(0), x.size(2), x.size(3)}});
  const Weights weights{w1, dense(b1), dense(w2), dense(b2), w3, dense(b3)};
  Network net = network_of(x, weights);
  const bool has_hidden = hidden1.dim() > 0 && hidden1.size(0) > 0;
  const ScalarType kept = bf16 && !is_double(x) ? ScalarType::BFloat16 : x.scalar_type();
  check_hidden("hidden1", hidden1, net, kept, has_hidden);
  check_hidden("hidden2", hidden2, net, kept, has_hidden);
  Tensor grad_x = empty_channels_last({wants_x ? x.size(0) : 0, x.size(1), x.size(2), x.size(3)}, x.scalar_type());
  // Convolutions' in the layout of their weights, as autograd wants them: others it would copy.
  Tensor grads[] = {empty_matching(w1),    empty_shaped_like(b1), empty_shaped_like(w2),
                    empty_shaped_like(b2), empty_matching(w3),    empty_shaped_like(b3)};
  if (x.size(0) * x.size(2) * x.size(3) > 0) {
    net.grad = image_of(grad);
    if (wants_x) net.grad_x = grad_x.mutable_data_ptr();
    if (has_hidden) {
      net.hidden1 = const_cast<void*>(hidden1.const_data_ptr());
      net.hidden2 = const_cast<void*>(hidden2.const_data_ptr());
    }
    void** targets[] = {&net.grad_w1, &net.grad_b1, &net.grad_w2, &net.grad_b2, &net.grad_w3, &net.grad_b3};
    for (int i = 0; i < 6; ++i) *targets[i] = grads[i].mutable_data_ptr();
    net.grad_at1 = filter_of(grads[0]), net.grad_at3 = filter_of(grads[4]);
    kernels_for(x, bf16).backward(net);
  } else {
    for (Tensor& each : grads) torch::stable::zero_(each);
  }
  return {grad_x, grads[0], grads[1], grads[2], grads[3], grads[4], grads[5]};
}

}  // namespace
}  // namespace hk

STABLE_TORCH_LIBRARY_IMPL(hybridkern, CPU, m) {
  m.impl("coupling_network_forward", TORCH_BOX(&hk::coupling_network_forward));
  m.impl("coupling_network_backward", TORCH_BOX(&hk::coupling_network_backward));
}
