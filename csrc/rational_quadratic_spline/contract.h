// What rational_quadratic_spline asks of its arguments; each name is that of the schema.
#pragma once

#include <cmath>

#include "../check.h"

namespace hk {

// SplineForm.spec of hybridkern/ops/rational_quadratic_spline/form.py, decoded.
struct SplineSpec {
  int64_t bins, scheme, tails;  // tails: 0 linear, 1 box, 2 circular
  bool inverse;
  double low, high, min_width, min_height, least, gain, beta;

  SplineSpec(int64_t code, double low_, double high_, double min_width_, double min_height_, double least_,
             double gain_, double beta_)
      : bins(code & 255),
        scheme((code >> 8) & 3),
        tails((code >> 10) & 3),
        inverse((code >> 12) & 1),
        low(low_),
        high(high_),
        min_width(min_width_),
        min_height(min_height_),
        least(least_),
        gain(gain_),
        beta(beta_) {
    if (code < 0 || code >= 1 << 13 || bins < 2 || bins > 64 || scheme > 1 || tails > 2)
      refuse("code", std::to_string(code), "the code of SplineForm.spec");
    check_range("low", low, -1e6, 1e6);
    check_range("high", high, low + 0.99e-6, 1e6);
    const double most = (1 - 1e-12) / static_cast<double>(bins);
    check_range("min_width", min_width, 0, most);
    check_range("min_height", min_height, 0, most);
    check_range("least", least, scheme == 1 ? 1e-30 : 0, 1 - 1e-12);
    check_range("gain", gain, -1e30, 1e30);
    check_range("beta", beta, 1e-30, 1e30);
  }

  bool is_zuko() const { return scheme == 1; }
  bool ties_ends() const { return tails == 2 && !is_zuko(); }
  bool wraps() const { return tails == 2 && is_zuko(); }
  int64_t derivatives() const { return tails == 1 ? bins + 1 : ties_ends() ? bins : bins - 1; }
  int64_t numbers() const { return 2 * bins + derivatives(); }
};

// (B, D, numbers), or (B, C*numbers, *S); with 1 in the place of the batch where it shares them.
inline void check_spline_params(const Argument& x, const Tensor& params, const SplineSpec& spec) {
  const Argument value("params", params);
  check_param(value, x);
  Shape wanted = x.shape();
  if (wanted.dims == 2)
    wanted.sizes[wanted.dims++] = spec.numbers();
  else
    wanted.sizes[1] *= spec.numbers();
  if (value.has(wanted)) return;
  const std::string full = text_of(wanted);
  wanted.sizes[0] = 1;
  if (!value.has(wanted)) refuse("params", "shape " + text_of(value.shape()), full + " or " + text_of(wanted));
}

inline void check_spline_forward(const Tensor& x, const Tensor& params, const std::optional<Tensor>& log_det,
                                 const SplineSpec& spec) {
  const Argument main = main_argument("x", x, 2);
  check_spline_params(main, params, spec);
  check_totals("log_det", log_det, main);
}

inline void check_spline_backward(const Tensor& x, const Tensor& params, const std::optional<Tensor>& grad_y,
                                  const std::optional<Tensor>& grad_log_det, const SplineSpec& spec) {
  const Argument main = main_argument("x", x, 2);
  check_spline_params(main, params, spec);
  if (grad_y) check_like("grad_y", *grad_y, main);
  check_totals("grad_log_det", grad_log_det, main);
}

}  // namespace hk
