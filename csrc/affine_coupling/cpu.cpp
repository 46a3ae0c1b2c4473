// affine_coupling: forward, backward from the input, backward from the output. Contract: hybridkern/ops.
#include <algorithm>
#include <optional>
#include <tuple>

#include "../cpu/operand.h"
#include "contract.h"
#include "spec.h"

namespace hk {
namespace {

template <class T>
struct CouplingCall {
  CouplingForm<T> form;
  RowOrder order;
  Operand x, a, t;
};

template <class T>
CouplingCall<T> prepare(const Tensor& x, const Tensor& params, int64_t code, const FormNumbers& numbers) {
  CouplingCall<T> call{decode_form<T>(code, numbers.data()), order_of(x), {}, {}, {}};
  call.x = operand(x, call.order);
  split_params(params, call.form, call.order, call.a, call.t);
  return call;
}

// Scale and shift of short rows, interleaved in a tensor without gaps: many rows are split in one loop, since a call
// for each row would cost as much as the formula.
template <class T>
struct Interleaved {
  T* pairs = nullptr;
  int64_t row = 0;
  bool scale_first = false;

  explicit operator bool() const { return pairs != nullptr; }

  // body(first, count): rows that one buffer holds.
  template <class F>
  void for_groups(int64_t rows, const F& body) const {
    const int64_t most = block_size / row;
    torch::stable::parallel_for(0, rows, grain_of(row), [&](int64_t begin, int64_t end) {
      for (int64_t first = begin; first < end; first += most) body(first, std::min(most, end - first));
    });
  }
  void split(int64_t first, int64_t count, T* a, T* t) const {
    const T* from = pairs + 2 * first * row;
    T *even = scale_first ? a : t, *odd = scale_first ? t : a;
    for (int64_t i = 0; i < count * row; ++i) even[i] = from[2 * i], odd[i] = from[2 * i + 1];
  }
  void join(int64_t first, int64_t count, const T* a, const T* t) const {
    T* to = pairs + 2 * first * row;
    const T *even = scale_first ? a : t, *odd = scale_first ? t : a;
    for (int64_t i = 0; i < count * row; ++i) to[2 * i] = even[i], to[2 * i + 1] = odd[i];
  }
};

template <class T>
Interleaved<T> interleaved(const CouplingForm<T>& form, const RowOrder& order, const Operand& a, const Operand& t) {
  constexpr int64_t longest = block_size / 8;
  const int64_t row = order.extent.row();
  const Element wanted = sizeof(T) == 8 ? Element::f64 : Element::f32;
  if (!form.has_scale() || form.layout < 2 || order.extent.pixels != 1 || row < 1 || row > longest) return {};
  if (a.element != wanted || a.channel_stride != 2 || a.batch_stride != 2 * row) return {};
  return {reinterpret_cast<T*>(form.layout == 3 ? a.data : t.data), row, form.layout == 3};
}

template <class T>
void forward(const Tensor& x, const Tensor& params, const std::optional<Tensor>& log_det, Tensor& y,
             Tensor& log_det_out, int64_t code, const FormNumbers& numbers) {
  const CouplingCall<T> call = prepare<T>(x, params, code, numbers);
  const Operand out = operand(y, call.order);
  const auto kernel = kernels<T>().coupling_forward[call.form.map][call.form.negate][call.form.before];
  const int64_t rows = x.size(0), row = call.order.extent.row();
  RowSums sums(rows, blocks_of(row));
  const bool large = beyond_cache<T>(rows * row * (call.form.has_scale() ? 4 : 3));
  const auto one = [&](int64_t b, int64_t k, int64_t i, int64_t n, const T* a, const T* t, T* known, T* target) {
    CouplingBlock<T> block{};
    block.n = n;
    block.known = read_block(call.x, call.order, b, i, n, known);
    block.t = t, block.a = a;
    block.y = block_target(out, b, i, target);
    block.stream = large && is_aligned(block.y);
    sums.at(b, k) = kernel(block, call.form);
    write_block(out, call.order, b, i, n, block.y);
  };
  if (const Interleaved<T> pairs = interleaved(call.form, call.order, call.a, call.t)) {
    pairs.for_groups(rows, [&](int64_t first, int64_t count) {
      T buffers[2][block_size], a[block_size], t[block_size];
      pairs.split(first, count, a, t);
      for (int64_t r = 0; r < count; ++r) one(first + r, 0, 0, row, a + r * row, t + r * row, buffers[0], buffers[1]);
    });
  } else {
    for_blocks(rows, row, [&](int64_t b, int64_t k, int64_t i, int64_t n) {
      T buffers[4][block_size];
      const T* t = read_block(call.t, call.order, b, i, n, buffers[2]);
      const T* a = call.form.has_scale() ? read_block(call.a, call.order, b, i, n, buffers[3]) : nullptr;
      one(b, k, i, n, a, t, buffers[0], buffers[1]);
    });
  }
  const RowTotals before(log_det);
  write_totals(log_det_out, [&](int64_t b) { return sums.total(b) + before.at(b); });
}

struct Gradients {
  Tensor x, params;
  std::optional<Tensor> recovered;
};

template <class T>
void backward(const Tensor& known, const Tensor& params, const std::optional<Tensor>& grad_y,
              const std::optional<Tensor>& grad_log_det, Gradients& out, int known_kind, int64_t code,
              const FormNumbers& numbers) {
  const CouplingCall<T> call = prepare<T>(known, params, code, numbers);
  Operand grad_a, grad_t, recovered, incoming;
  split_params(out.params, call.form, call.order, grad_a, grad_t);
  const Operand grad_x = operand(out.x, call.order);
  if (out.recovered) recovered = operand(*out.recovered, call.order);
  if (grad_y) incoming = operand(*grad_y, call.order);
  const auto kernel = kernels<T>().coupling_backward[call.form.map][call.form.negate][call.form.before][known_kind];
  const bool shift_read = known_kind == output_recover || (known_kind == from_input) == call.form.before;
  const int64_t tensors = 3 + 3 * (call.form.has_scale() ? 1 : 0) + 1 + shift_read + (known_kind == output_recover);
  const int64_t rows = known.size(0), row = call.order.extent.row();
  const Interleaved<T> from = interleaved(call.form, call.order, call.a, call.t);
  const Interleaved<T> to = interleaved(call.form, call.order, grad_a, grad_t);
  const bool in_groups = from && to, large = !in_groups && beyond_cache<T>(known.numel() * tensors);
  const RowTotals grad_log_dets(grad_log_det);
  // From parameters and to their gradients, which wait in a buffer where they lie otherwise.
  const auto one = [&](int64_t b, int64_t i, int64_t n, const T* a, const T* t, T* to_a, T* to_t,
                       T(*buffers)[block_size]) {
    CouplingBlock<T> block{};
    block.n = n;
    block.known = read_block(call.x, call.order, b, i, n, buffers[0]);
    block.a = a, block.t = t;
    if (grad_y) block.grad_y = read_block(incoming, call.order, b, i, n, buffers[1]);
    block.grad_log_det = static_cast<T>(grad_log_dets.at(b));
    block.grad_x = block_target(grad_x, b, i, buffers[2]);
    block.grad_a = to_a, block.grad_t = to_t;
    block.x = block_target(recovered, b, i, buffers[3]);
    block.stream = large && is_aligned(block.grad_x) && is_aligned(block.grad_a) && is_aligned(block.grad_t) &&
                   is_aligned(block.x);
    kernel(block, call.form);
    write_block(grad_x, call.order, b, i, n, block.grad_x);
    write_block(recovered, call.order, b, i, n, block.x);
  };
  if (in_groups) {
    from.for_groups(rows, [&](int64_t first, int64_t count) {
      T buffers[4][block_size], a[block_size], t[block_size], to_a[block_size], to_t[block_size];
      from.split(first, count, a, t);
      for (int64_t r = 0, at = 0; r < count; ++r, at += row)
        one(first + r, 0, row, a + at, t + at, to_a + at, to_t + at, buffers);
      to.join(first, count, to_a, to_t);
    });
    return;
  }
  for_blocks(rows, row, [&](int64_t b, int64_t, int64_t i, int64_t n) {
    T buffers[8][block_size];
    const T* t = shift_read ? read_block(call.t, call.order, b, i, n, buffers[4]) : nullptr;
    const T* a = call.form.has_scale() ? read_block(call.a, call.order, b, i, n, buffers[5]) : nullptr;
    T *to_a = block_target(grad_a, b, i, buffers[6]), *to_t = block_target(grad_t, b, i, buffers[7]);
    one(b, i, n, a, t, to_a, to_t, buffers);
    write_block(grad_a, call.order, b, i, n, to_a);
    write_block(grad_t, call.order, b, i, n, to_t);
  });
}

std::tuple<Tensor, Tensor> affine_coupling_forward(const Tensor& x, const Tensor& params,
                                                   const std::optional<Tensor>& log_det, int64_t code,
                                                   const FormNumbers& numbers) {
  check_coupling_forward(x, params, log_det, code, numbers);
  Tensor y = empty_matching(x);
  Tensor log_det_out = empty_totals(x, log_det && is_double(*log_det));
  const Tensor xf = foldable(x), pf = foldable(params);
  Writable out(y);
  if (is_double(x))
    forward<double>(xf, pf, log_det, out.tensor, log_det_out, code, numbers);
  else
    forward<float>(xf, pf, log_det, out.tensor, log_det_out, code, numbers);
  out.finish();
  return {y, log_det_out};
}

Gradients gradients(const Tensor& known, const Tensor& params, const std::optional<Tensor>& grad_y,
                    const std::optional<Tensor>& grad_log_det, KnownKind kind, int64_t code,
                    const FormNumbers& numbers) {
  check_coupling_backward(kind == output_recover ? "y" : "known", known, params, grad_y, grad_log_det, code, numbers);
  Gradients result{empty_matching(known), empty_matching(params), std::nullopt};
  Writable grad_x(result.x), grad_params(result.params);
  std::optional<Writable> recovered;
  if (kind == output_recover) {
    result.recovered = empty_matching(known);
    recovered.emplace(*result.recovered);
  }
  Gradients out{grad_x.tensor, grad_params.tensor, std::nullopt};
  if (recovered) out.recovered = recovered->tensor;
  const Tensor kf = foldable(known), pf = foldable(params);
  std::optional<Tensor> gf;
  if (grad_y) gf = foldable(*grad_y);
  if (is_double(known))
    backward<double>(kf, pf, gf, grad_log_det, out, kind, code, numbers);
  else
    backward<float>(kf, pf, gf, grad_log_det, out, kind, code, numbers);
  grad_x.finish();
  grad_params.finish();
  if (recovered) recovered->finish();
  return result;
}

std::tuple<Tensor, Tensor> affine_coupling_backward(const Tensor& known, const Tensor& params,
                                                    const std::optional<Tensor>& grad_y,
                                                    const std::optional<Tensor>& grad_log_det, int64_t code,
                                                    const FormNumbers& numbers, bool known_is_output) {
  Gradients g =
      gradients(known, params, grad_y, grad_log_det, known_is_output ? from_output : from_input, code, numbers);
  return {g.x, g.params};
}

std::tuple<Tensor, Tensor, Tensor> affine_coupling_backward_from_output(const Tensor& y, const Tensor& params,
                                                                        const std::optional<Tensor>& grad_y,
                                                                        const std::optional<Tensor>& grad_log_det,
                                                                        int64_t code, const FormNumbers& numbers) {
  Gradients g = gradients(y, params, grad_y, grad_log_det, output_recover, code, numbers);
  return {*g.recovered, g.x, g.params};
}

}  // namespace
}  // namespace hk

STABLE_TORCH_LIBRARY_IMPL(hybridkern, CPU, m) {
  m.impl("affine_coupling_forward", TORCH_BOX(&hk::affine_coupling_forward));
  m.impl("affine_coupling_backward", TORCH_BOX(&hk::affine_coupling_backward));
  m.impl("affine_coupling_backward_from_output", TORCH_BOX(&hk::affine_coupling_backward_from_output));
}
