// affine_coupling_actnorm: a coupling of part of a vector and the scale and offset after it. Contract: hybridkern/ops.
#include <algorithm>
#include <cmath>
#include <tuple>

#include "../affine_coupling/spec.h"
#include "../cpu/operand.h"

namespace hk {
namespace {

// Partial sums of the gradients of scale and offset; a function of the shape alone, as sums must not depend on the
// threads. Within a group of rows they run in the working type, over groups in double precision.
constexpr int64_t rows_per_group = 64, most_parts = 64;

template <class T>
const T* numbers_of(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

// Rows without gaps, at any distance.
Tensor with_whole_rows(const Tensor& matrix) {
  return matrix.stride(1) == 1 || matrix.size(1) <= 1 ? matrix : torch::stable::contiguous(matrix);
}

Tensor empty_rows(const Tensor& like) {
  const int64_t sizes[2] = {like.size(0), like.size(1)};
  return empty_tensor(sizes, 2, like.scalar_type());
}

// What both directions read; `x`, `params` and `scale` must outlive it.
template <class T>
ActnormRows<T> describe(const Tensor& x, const Tensor& params, const Tensor& scale, const CouplingForm<T>& form) {
  ActnormRows<T> rows{};
  rows.x = numbers_of<T>(x), rows.params = numbers_of<T>(params), rows.scale = numbers_of<T>(scale);
  rows.x_stride = x.stride(0), rows.params_stride = params.stride(0);
  rows.rows = x.size(0), rows.width = x.size(1), rows.coupled = params.size(1) / 2;
  rows.a_place = form.layout == 0 ? 0 : rows.coupled;
  rows.t_place = rows.coupled - rows.a_place;
  return rows;
}

// The rows from `begin` on, `count` of them.
template <class T>
ActnormRows<T> part_of(ActnormRows<T> rows, int64_t begin, int64_t count) {
  rows.x += begin * rows.x_stride, rows.params += begin * rows.params_stride;
  if (rows.y) rows.y += begin * rows.width, rows.log_dets += begin;
  if (rows.grad_y) {
    rows.grad_y += begin * rows.grad_y_stride, rows.grad_log_det += begin;
    rows.grad_x += begin * rows.width, rows.grad_params += begin * 2 * rows.coupled;
  }
  rows.rows = count;
  return rows;
}

template <class T>
void forward(ActnormRows<T> rows, const Tensor& offset, Tensor& y, Tensor& log_det, const CouplingForm<T>& form) {
  std::vector<double> log_dets(rows.rows);
  rows.offset = numbers_of<T>(offset), rows.y = static_cast<T*>(y.mutable_data_ptr()), rows.log_dets = log_dets.data();
  const auto kernel = kernels<T>().actnorm_forward[form.map];
  torch::stable::parallel_for(0, rows.rows, grain_of(rows.width), [&](int64_t begin, int64_t end) {
    if (begin < end) kernel(part_of(rows, begin, end - begin), form);
  });
  double own = 0;
  for (int64_t i = 0; i < rows.width; ++i) own += std::log(std::fabs(static_cast<double>(rows.scale[i])));
  write_totals(log_det, [&](int64_t b) { return log_dets[b] + own; });
}

template <class T>
void backward(ActnormRows<T> rows, const Tensor& grad_y, const Tensor& grad_log_det, Tensor& grad_x,
              Tensor& grad_params, Tensor& grad_scale, Tensor& grad_offset, const CouplingForm<T>& form) {
  const RowTotals incoming(grad_log_det);
  std::vector<T> grad_log_dets(rows.rows);
  double own = 0;
  for (int64_t b = 0; b < rows.rows; ++b) {
    own += incoming.at(b);
    grad_log_dets[b] = static_cast<T>(incoming.at(b));
  }
  rows.grad_y = numbers_of<T>(grad_y), rows.grad_y_stride = grad_y.stride(0), rows.grad_log_det = grad_log_dets.data();
  rows.grad_x = static_cast<T*>(grad_x.mutable_data_ptr());
  rows.grad_params = static_cast<T*>(grad_params.mutable_data_ptr());
  const auto kernel = kernels<T>().actnorm_backward[form.map];
  const int64_t groups = (rows.rows + rows_per_group - 1) / rows_per_group, width = rows.width;
  const int64_t parts = std::clamp(groups, int64_t(1), most_parts);
  std::vector<double> totals(parts * 2 * width, 0.0);
  torch::stable::parallel_for(0, parts, grain_of(rows.rows * width / parts), [&](int64_t begin, int64_t end) {
    std::vector<T> sums(2 * width);
    for (int64_t part = begin; part < end; ++part) {
      double* total = totals.data() + part * 2 * width;
      for (int64_t group = groups * part / parts; group < groups * (part + 1) / parts; ++group) {
        std::fill(sums.begin(), sums.end(), T(0));
        const int64_t first = group * rows_per_group;
        ActnormRows<T> some = part_of(rows, first, std::min(rows_per_group, rows.rows - first));
        some.grad_scale = sums.data(), some.grad_offset = sums.data() + width;
        kernel(some, form);
        for (int64_t k = 0; k < 2 * width; ++k) total[k] += static_cast<double>(sums[k]);
      }
    }
  });
  for (int64_t part = 1; part < parts; ++part)
    for (int64_t k = 0; k < 2 * width; ++k) totals[k] += totals[part * 2 * width + k];
  T* to_scale = static_cast<T*>(grad_scale.mutable_data_ptr());
  T* to_offset = static_cast<T*>(grad_offset.mutable_data_ptr());
  for (int64_t i = 0; i < width; ++i) {
    to_scale[i] = static_cast<T>(totals[i] + own / static_cast<double>(rows.scale[i]));
    to_offset[i] = static_cast<T>(totals[width + i]);
  }
}

Argument check_step(const Tensor& x, const Tensor& params, const Tensor& scale, int64_t code,
                    const FormNumbers& numbers) {
  check_form(code, numbers);
  if (!has_scale(code) || ((code >> 8) & 15) >= 2)
    refuse("code", std::to_string(code), "that of a form with scale, its parameters in halves");
  const Argument main = working_argument("x", x, 2), value("params", params);
  check_same_type(value, main);
  const int64_t rows = main.sizes[0], width = main.sizes[1];
  if (value.dims != 2 || value.sizes[0] != rows || value.sizes[1] % 2 || value.sizes[1] < 2 ||
      value.sizes[1] / 2 > width)
    refuse("params", "shape " + text_of(value.shape()),
           "(" + std::to_string(rows) + ", 2n) with n in 1 .. " + std::to_string(width));
  check_exactly("scale", scale, main, {1, {width}});
  return main;
}

std::tuple<Tensor, Tensor> affine_coupling_actnorm_forward(const Tensor& x, const Tensor& params, const Tensor& scale,
                                                           const Tensor& offset, int64_t code,
                                                           const FormNumbers& numbers) {
  const Argument main = check_step(x, params, scale, code, numbers);
  check_exactly("offset", offset, main, {1, {main.sizes[1]}});
  Tensor y = empty_rows(x), log_det = empty_totals(x);
  const Tensor xr = with_whole_rows(x), pr = with_whole_rows(params);
  const Tensor sr = torch::stable::contiguous(scale), br = torch::stable::contiguous(offset);
  const auto run = [&]<class T>(const CouplingForm<T>& form) {
    forward(describe<T>(xr, pr, sr, form), br, y, log_det, form);
  };
  is_double(x) ? run(decode_form<double>(code, numbers.data())) : run(decode_form<float>(code, numbers.data()));
  return {y, log_det};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> affine_coupling_actnorm_backward(const Tensor& grad_y,
                                                                            const Tensor& grad_log_det, const Tensor& x,
                                                                            const Tensor& params, const Tensor& scale,
                                                                            int64_t code, const FormNumbers& numbers) {
  const Argument main = check_step(x, params, scale, code, numbers);
  check_like("grad_y", grad_y, main);
  check_totals("grad_log_det", grad_log_det, main);
  Tensor grad_x = empty_rows(x), grad_params = empty_rows(params);
  Tensor grad_scale = empty_shaped_like(scale), grad_offset = empty_shaped_like(scale);
  const Tensor gr = with_whole_rows(grad_y), xr = with_whole_rows(x), pr = with_whole_rows(params);
  const Tensor sr = torch::stable::contiguous(scale);
  const auto run = [&]<class T>(const CouplingForm<T>& form) {
    backward(describe<T>(xr, pr, sr, form), gr, grad_log_det, grad_x, grad_params, grad_scale, grad_offset, form);
  };
  is_double(x) ? run(decode_form<double>(code, numbers.data())) : run(decode_form<float>(code, numbers.data()));
  return {grad_x, grad_params, grad_scale, grad_offset};
}

}  // namespace
}  // namespace hk

STABLE_TORCH_LIBRARY_IMPL(hybridkern, CPU, m) {
  m.impl("affine_coupling_actnorm_forward", TORCH_BOX(&hk::affine_coupling_actnorm_forward));
  m.impl("affine_coupling_actnorm_backward", TORCH_BOX(&hk::affine_coupling_actnorm_backward));
}
