// discretized_logistic: forward and backward. Contract: hybridkern/ops.
#include <tuple>

#include "../cuda/plan.h"
#include "contract.h"
// after the shim
#include "cuda.cuh"

namespace hk::cuda {
namespace {

constexpr int64_t rows_of_a_thread = 128, least_rows_of_a_thread = 8;

template <class T>
BinNumbers<T> bin_numbers(double width) {
  const T half = static_cast<T>(width / 2);
  return {static_cast<T>(width), half, static_cast<T>(width / 2 - static_cast<double>(half))};
}

struct Inputs {
  Tensor x, mean, log_scale;
  RowOrder order;
  Inputs(const Tensor& x_, const Tensor& mean_, const Tensor& log_scale_)
      : x(foldable(x_)), mean(foldable(mean_)), log_scale(foldable(log_scale_)), order(order_of(x)) {}
};

template <class T>
void forward(const Inputs& in, double width, bool reduce, const Tensor& out) {
  Plan plan(in.x.size(0), in.order, in.x, in.mean);
  LogisticForward<T> call{};
  plan.data(call.x, operand(in.x, in.order));
  if (!reduce) plan.data(call.out, operand(out, in.order));
  plan.param(call.mean, operand(in.mean, in.order));
  plan.param(call.log_scale, operand(in.log_scale, in.order));
  plan.finish(reduce, !reduce);
  call.walk = plan.walk();
  call.bin = bin_numbers<T>(width);
  std::optional<Tensor> partial;
  if (reduce) {
    call.total = totals_of(out);
    if (call.walk.chunks > 1) {
      partial = workspace(in.x, plan.units(), ScalarType::Double);
      call.partial = static_cast<double*>(partial->mutable_data_ptr());
    }
  }
  plan.dispatch([&]<class X, class P, int N>() {
    if constexpr (std::is_same_v<Working<X>, T>)
      HK_LAUNCH((hk_discretized_logistic_forward<X, P, N>), plan.blocks(), call);
  });
  if (partial) finish_rows(*partial, call.walk.rows, call.walk.chunks, {}, call.total, 1.0);
}

// Columns by rows: see LogisticShared. A thread sums `rows_of_a_thread` rows at most in the working type.
template <class T>
void backward_shared(const LogisticBackward<T>& call, const Plan& plan, const Tensor& like) {
  const Walk& walk = call.walk;
  const int64_t rows = walk.rows, row = walk.row;
  plan.dispatch([&]<class X, class P, int N>() {
    if constexpr (std::is_same_v<Working<X>, T>) {
      const int64_t vectors = ceil_div(row, N);
      LogisticShared<T> shared{call, power_of_two_from(vectors, block_threads), 0, 0, 0, nullptr};
      const int64_t at_once = block_threads / shared.columns;
      shared.tiles = ceil_div(vectors, shared.columns);
      const int64_t each =
          std::clamp(rows * shared.tiles / (at_once * worthwhile_blocks), least_rows_of_a_thread, rows_of_a_thread);
      shared.slab_rows = each * at_once;
      shared.slabs = ceil_div(rows, shared.slab_rows);
      const int64_t blocks = shared.tiles * shared.slabs;
      STD_TORCH_CHECK(blocks <= most_blocks, "hybridkern: discretized_logistic: the batch is too large for one launch");
      const Tensor partial = workspace(like, std::max<int64_t>(1, 2 * shared.slabs * row),
                                       sizeof(T) == 8 ? ScalarType::Double : ScalarType::Float);
      shared.partial = static_cast<T*>(partial.mutable_data_ptr());
      if (blocks > 0)
        HK_LAUNCH((hk_discretized_logistic_backward_shared<X, P, N>), static_cast<unsigned>(blocks), shared);
      FinishColumns<T> finish{
          walk, shared.partial, call.grad_mean, call.grad_log_scale, power_of_two_from(row, warp_threads),
          0,    shared.slabs};
      HK_LAUNCH((hk_finish_columns<T>), static_cast<unsigned>(ceil_div(row, finish.columns)), finish);
    }
  });
}

template <class T>
void backward(const Tensor& grad, const Inputs& in, double width, bool reduce, const Tensor& grad_x,
              const Tensor& grad_mean, const Tensor& grad_log_scale) {
  const int64_t rows = in.x.size(0);
  const bool shared = is_shared(in.mean, rows);
  Plan plan(rows, in.order, in.x, in.mean);
  LogisticBackward<T> call{};
  plan.data(call.x, operand(in.x, in.order));
  if (!reduce) plan.data(call.grad, operand(grad, in.order));
  plan.data(call.grad_x, operand(grad_x, in.order));
  plan.param(call.mean, operand(in.mean, in.order));
  plan.param(call.log_scale, operand(in.log_scale, in.order));
  plan.param(call.grad_mean, operand(grad_mean, in.order));
  plan.param(call.grad_log_scale, operand(grad_log_scale, in.order));
  plan.finish(false, !reduce && !shared);
  call.walk = plan.walk();
  call.bin = bin_numbers<T>(width);
  if (reduce) call.grad_each = totals_of(grad);
  if (call.walk.row == 0) return;
  if (shared) return backward_shared<T>(call, plan, in.x);
  if (rows == 0) return;
  plan.dispatch([&]<class X, class P, int N>() {
    if constexpr (std::is_same_v<Working<X>, T>)
      HK_LAUNCH((hk_discretized_logistic_backward<X, P, N>), plan.blocks(), call);
  });
}

Tensor discretized_logistic_forward(const Tensor& x, const Tensor& mean, const Tensor& log_scale, double bin_width,
                                    bool reduce) {
  check_logistic(main_argument("x", x, 1), mean, log_scale, bin_width);
  const OnDeviceOf device(x);
  Tensor result = reduce ? empty_totals(x, is_double(x)) : torch::stable::empty_like(x);
  if (result.numel() == 0) return result;
  Writable out(result);
  const auto run = is_double(x) ? forward<double> : forward<float>;
  run(Inputs(x, mean, log_scale), bin_width, reduce, out.tensor);
  out.finish();
  return result;
}

std::tuple<Tensor, Tensor, Tensor> discretized_logistic_backward(const Tensor& grad, const Tensor& x,
                                                                 const Tensor& mean, const Tensor& log_scale,
                                                                 double bin_width, bool reduce) {
  const Argument main = main_argument("x", x, 1);
  check_logistic(main, mean, log_scale, bin_width);
  check_density_grad(grad, main, reduce);
  const OnDeviceOf device(x);
  Tensor grad_x = torch::stable::empty_like(x);
  Tensor grad_mean = empty_shaped_like(mean), grad_log_scale = empty_shaped_like(log_scale);
  Writable out(grad_x);
  const auto run = is_double(x) ? backward<double> : backward<float>;
  run(reduce ? grad : incoming_gradient(grad), Inputs(x, mean, log_scale), bin_width, reduce, out.tensor, grad_mean,
      grad_log_scale);
  out.finish();
  return {grad_x, grad_mean, grad_log_scale};
}

}  // namespace
}  // namespace hk::cuda

HK_REGISTER(m) {
  m.impl("discretized_logistic_forward", TORCH_BOX(&hk::cuda::discretized_logistic_forward));
  m.impl("discretized_logistic_backward", TORCH_BOX(&hk::cuda::discretized_logistic_backward));
}
