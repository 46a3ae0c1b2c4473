// discretized_logistic_mixture: forward and backward. Contract: hybridkern/ops.
#include <algorithm>
#include <array>
#include <memory>
#include <tuple>

#include "../cpu/operand.h"
#include "../cpu/shared_gradients.h"
#include "../discretized_logistic/bin.h"
#include "../discretized_logistic/contract.h"

namespace hk {
namespace {

// Shorter than block_size, since a block has three arrays a component.
constexpr int64_t mixture_columns = tile_columns;

// The K slices of a parameter (B, K, C, *S).
std::vector<Operand> components_of(const Tensor& param, const RowOrder& order) {
  Operand first = operand(param, order, 2);
  const int64_t width = first.element == Element::f64 ? 8 : first.element == Element::f32 ? 4 : 2;
  std::vector<Operand> out;
  for (int64_t k = 0; k < param.size(1); ++k) {
    out.push_back(first);
    first.data += param.stride(1) * width;
  }
  return out;
}

using Parameters = std::array<std::vector<Operand>, 3>;  // logits, mean, log_scale

Parameters parameters(const Tensor& logits, const Tensor& mean, const Tensor& log_scale, const RowOrder& order) {
  return {components_of(logits, order), components_of(mean, order), components_of(log_scale, order)};
}

// What one thread needs: pointers to 3K arrays and buffers for those that do not lie in the tensors so already, the
// places of the next block, and the kernels' scratch.
template <class T>
class Workspace {
 public:
  explicit Workspace(int64_t components)
      : k_(components),
        values_(3 * components * mixture_columns),
        gradients_(3 * components * mixture_columns),
        in_(3 * components),
        out_(3 * components),
        next_in_(3 * components),
        next_out_(3 * components),
        scratch_(mixture_slots * components * max_lanes + 64 / sizeof(T)) {}

  void read(const Parameters& from, const RowOrder& order, int64_t b, int64_t i, int64_t n, MixtureBlock<T>& block) {
    for (int64_t p = 0; p < 3 * k_; ++p) {
      T* buffer = values_.data() + p * mixture_columns;
      in_[p] = read_block(from[p / k_][p % k_], order, b, i, n, buffer);
    }
    // the runs are too short for the processor to see them coming
    const bool wraps = i + n >= order.extent.row();
    for (int64_t p = 0; p < 3 * k_; ++p)
      next_in_[p] = place_of(from[p / k_][p % k_], wraps ? b + 1 : b, wraps ? 0 : i + n);
    block.next_in = next_in_.data();
    block.logits = in_.data();
    block.mean = in_.data() + k_;
    block.log_scale = in_.data() + 2 * k_;
    block.components = k_;
    void* aligned = scratch_.data();
    size_t space = scratch_.size() * sizeof(T);
    block.scratch = static_cast<T*>(std::align(64, mixture_slots * k_ * max_lanes * sizeof(T), aligned, space));
    block.n = n;
  }

  void aim(const Parameters& to, int64_t row, int64_t b, int64_t i, MixtureBlock<T>& block) {
    for (int64_t p = 0; p < 3 * k_; ++p)
      out_[p] = block_target(to[p / k_][p % k_], b, i, gradients_.data() + p * mixture_columns);
    const bool wraps = i + block.n >= row;
    for (int64_t p = 0; p < 3 * k_; ++p)
      next_out_[p] = place_of(to[p / k_][p % k_], wraps ? b + 1 : b, wraps ? 0 : i + block.n);
    block.next_out = next_out_.data();
    point(block);
  }

  bool aligned() const { return std::all_of(out_.begin(), out_.end(), is_aligned<T>); }

  void aim(T* sums, MixtureBlock<T>& block) {
    for (int64_t p = 0; p < 3 * k_; ++p) out_[p] = sums + p * tile_columns;
    point(block);
    block.accumulate = true;
  }

  void write(const Parameters& to, const RowOrder& order, int64_t b, int64_t i, int64_t n) const {
    for (int64_t p = 0; p < 3 * k_; ++p) write_block(to[p / k_][p % k_], order, b, i, n, out_[p]);
  }

 private:
  void point(MixtureBlock<T>& block) {
    block.grad_logits = out_.data();
    block.grad_mean = out_.data() + k_;
    block.grad_log_scale = out_.data() + 2 * k_;
  }

  int64_t k_;
  std::vector<T> values_, gradients_;
  std::vector<const T*> in_;
  std::vector<T*> out_;
  std::vector<const char*> next_in_, next_out_;
  std::vector<T> scratch_;
};

// Calls body(workspace, b, k, i, n) for every block of every row, in parallel.
template <class T, class F>
void for_mixture_blocks(int64_t rows, int64_t row, int64_t components, const F& body) {
  const int64_t blocks = (row + mixture_columns - 1) / mixture_columns;
  const int64_t each = components * (row < mixture_columns ? row : mixture_columns);
  parallel_for_density(0, rows * blocks, grain_of(each), [&](int64_t begin, int64_t end) {
    Workspace<T> workspace(components);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t b = unit / blocks, k = unit % blocks, i = k * mixture_columns;
      body(workspace, b, k, i, row - i < mixture_columns ? row - i : mixture_columns);
    }
  });
}

template <class T>
void forward(const Tensor& x, const Tensor& logits, const Tensor& mean, const Tensor& log_scale, double width,
             bool reduce, Tensor& out) {
  const RowOrder order = order_of(x);
  const Operand from = operand(x, order), to = reduce ? Operand{} : operand(out, order);
  const Parameters params = parameters(logits, mean, log_scale, order);
  const BinConstants<T> bin = bin_constants<T>(width);
  const int64_t rows = x.size(0), row = order.extent.row();
  RowSums sums(rows, (row + mixture_columns - 1) / mixture_columns);
  for_mixture_blocks<T>(rows, row, logits.size(1),
                        [&](Workspace<T>& workspace, int64_t b, int64_t k, int64_t i, int64_t n) {
                          T buffers[2][mixture_columns];
                          MixtureBlock<T> block{};
                          workspace.read(params, order, b, i, n, block);
                          block.x = read_block(from, order, b, i, n, buffers[0]);
                          block.out = block_target(to, b, i, buffers[1]);
                          sums.at(b, k) = kernels<T>().mixture_forward(block, bin);
                          write_block(to, order, b, i, n, block.out);
                        });
  if (reduce) write_totals(out, [&](int64_t b) { return sums.total(b); });
}

template <class T>
struct Backward {
  const RowOrder order;
  const BinConstants<T> bin;
  const RowTotals grad_totals;  // of the gradient, where `reduce`
  const bool reduce;
  const Operand from, incoming, grad_x;
  const Parameters params, grads;

  Backward(const Tensor& grad_, const Tensor& x, const Parameters& params_, const Parameters& grads_,
           const RowOrder& order_, double width, bool reduce_, Tensor& gx)
      : order(order_),
        bin(bin_constants<T>(width)),
        grad_totals(grad_),
        reduce(reduce_),
        from(operand(x, order)),
        incoming(reduce_ ? Operand{} : operand(grad_, order)),
        grad_x(operand(gx, order)),
        params(params_),
        grads(grads_) {}

  int64_t components() const { return static_cast<int64_t>(params[0].size()); }

  void step(Workspace<T>& workspace, MixtureBlock<T>& block, int64_t b, int64_t i, int64_t n) const {
    T buffers[3][mixture_columns];
    workspace.read(params, order, b, i, n, block);
    block.x = read_block(from, order, b, i, n, buffers[0]);
    if (reduce)
      block.grad_each = static_cast<T>(grad_totals.at(b));
    else
      block.grad = read_block(incoming, order, b, i, n, buffers[1]);
    block.grad_x = block_target(grad_x, b, i, buffers[2]);
    kernels<T>().mixture_backward(block, bin);
    write_block(grad_x, order, b, i, n, block.grad_x);
  }

  void run(int64_t rows, bool shared) const {
    const int64_t row = order.extent.row();
    const bool large = beyond_cache<T>(rows * row * 6 * components());
    if (!shared) {
      for_mixture_blocks<T>(rows, row, components(),
                            [&](Workspace<T>& workspace, int64_t b, int64_t, int64_t i, int64_t n) {
                              MixtureBlock<T> block{};
                              block.n = n;
                              workspace.aim(grads, row, b, i, block);
                              block.stream = large && workspace.aligned();
                              if (block.stream) block.next_out = nullptr;
                              step(workspace, block, b, i, n);
                              workspace.write(grads, order, b, i, n);
                            });
      return;
    }
    sum_over_batch<T>(
        rows, row, 3 * components(),
        [&](int64_t b, int64_t i, int64_t n, T* sums) {
          thread_local std::unique_ptr<Workspace<T>> workspace;
          thread_local int64_t made_for = -1;
          if (made_for != components()) {
            workspace = std::make_unique<Workspace<T>>(components());  // may throw: what was made before stays
            made_for = components();
          }
          MixtureBlock<T> block{};
          workspace->aim(sums, block);
          step(*workspace, block, b, i, n);
        },
        [&](int64_t array, int64_t i, int64_t n, const double* totals) {
          write_values<T>(grads[array / components()][array % components()], order, i, n, totals);
        });
  }
};

// Parameters (B, K, *S), or (1, K, *S), all alike.
void check_mixture(const Argument& x, const Tensor& logits, const Tensor& mean, const Tensor& log_scale, double width) {
  check_bin_width(width);
  const Argument weights("logits", logits);
  Shape wanted = x.shape();
  if (weights.dims != x.dims + 1 || weights.sizes[1] < 1)
    refuse("logits", "shape " + text_of(weights.shape()),
           "(B, K, ...) with a component at least for x of shape " + text_of(wanted));
  std::copy_backward(wanted.sizes + 1, wanted.sizes + wanted.dims, wanted.sizes + wanted.dims + 1);
  wanted.sizes[1] = weights.sizes[1], ++wanted.dims;
  check_param(weights, x);
  check_shared_shape(weights, wanted);
  for (const Argument& value : {Argument("mean", mean), Argument("log_scale", log_scale)}) {
    check_param(value, x);
    check_shape_of(value, weights);
  }
}

Tensor discretized_logistic_mixture_forward(const Tensor& x, const Tensor& logits, const Tensor& mean,
                                            const Tensor& log_scale, double bin_width, bool reduce) {
  check_mixture(main_argument("x", x, 1), logits, mean, log_scale, bin_width);
  Tensor result = reduce ? empty_totals(x) : empty_matching(x);
  Writable out(result);
  const Tensor xf = foldable(x), lf = foldable(logits, 3), mf = foldable(mean, 3), sf = foldable(log_scale, 3);
  if (is_double(x))
    forward<double>(xf, lf, mf, sf, bin_width, reduce, out.tensor);
  else
    forward<float>(xf, lf, mf, sf, bin_width, reduce, out.tensor);
  out.finish();
  return result;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> discretized_logistic_mixture_backward(const Tensor& grad, const Tensor& x,
                                                                                 const Tensor& logits,
                                                                                 const Tensor& mean,
                                                                                 const Tensor& log_scale,
                                                                                 double bin_width, bool reduce) {
  const Argument main = main_argument("x", x, 1);
  check_mixture(main, logits, mean, log_scale, bin_width);
  check_density_grad(grad, main, reduce);
  Tensor grad_x = empty_matching(x);
  Tensor grad_logits = empty_shaped_like(logits);
  Tensor grad_mean = empty_shaped_like(mean);
  Tensor grad_log_scale = empty_shaped_like(log_scale);
  Writable out(grad_x);
  const Tensor gf = reduce ? grad : foldable(grad), xf = foldable(x);
  const Tensor lf = foldable(logits, 3), mf = foldable(mean, 3), sf = foldable(log_scale, 3);
  const RowOrder order = order_of(xf);
  const Parameters params = parameters(lf, mf, sf, order);
  const Parameters grads = parameters(grad_logits, grad_mean, grad_log_scale, order);
  const int64_t rows = x.size(0);
  const bool shared = is_shared(logits, rows);
  if (is_double(x))
    Backward<double>(gf, xf, params, grads, order, bin_width, reduce, out.tensor).run(rows, shared);
  else
    Backward<float>(gf, xf, params, grads, order, bin_width, reduce, out.tensor).run(rows, shared);
  out.finish();
  return {grad_x, grad_logits, grad_mean, grad_log_scale};
}

}  // namespace
}  // namespace hk

STABLE_TORCH_LIBRARY_IMPL(hybridkern, CPU, m) {
  m.impl("discretized_logistic_mixture_forward", TORCH_BOX(&hk::discretized_logistic_mixture_forward));
  m.impl("discretized_logistic_mixture_backward", TORCH_BOX(&hk::discretized_logistic_mixture_backward));
}
