// The table of kernels.h over vectors of one instruction set; included once by each of isa_*.cpp. An operator's loops.h
// has its loops.
#pragma once

#include "../adamax/loops.h"
#include "../affine_coupling/loops.h"
#include "../affine_coupling_actnorm/loops.h"
#include "../discretized_logistic/loops.h"
#include "../discretized_logistic_mixture/loops.h"
#include "../gaussian_log_prob/loops.h"
#include "../lipswish/loops.h"
#include "../masked_network/loops.h"
#include "../paired_conv1x1/loops.h"
#include "../rational_quadratic_spline/loops.h"
#include "../rounding_coupling/loops.h"

namespace hk::HK_ISA {

template <class T>
Kernels<T> make_kernels(const char* name) {
  Kernels<T> table{};
  table.name = name;
  table.lanes = Lanes<typename VectorOf<T>::type>::count;
  fill_couplings<ScaleMap::none>(table);
  fill_couplings<ScaleMap::exp>(table);
  fill_couplings<ScaleMap::sigmoid>(table);
  fill_couplings<ScaleMap::tanh>(table);
  fill_couplings<ScaleMap::atan>(table);
  fill_couplings<ScaleMap::softsign>(table);
  fill_couplings<ScaleMap::softplus>(table);
  fill_couplings<ScaleMap::sigmoid_eps>(table);
  fill_actnorm<ScaleMap::exp>(table);
  fill_actnorm<ScaleMap::sigmoid>(table);
  fill_actnorm<ScaleMap::tanh>(table);
  fill_actnorm<ScaleMap::atan>(table);
  fill_actnorm<ScaleMap::softsign>(table);
  fill_actnorm<ScaleMap::softplus>(table);
  fill_actnorm<ScaleMap::sigmoid_eps>(table);
  table.rounding_forward = rounding_forward<T>;
  table.rounding_backward = rounding_backward<T>;
  table.logistic_prepare = logistic_prepare<T>;
  table.logistic_forward = logistic_forward<T>;
  table.logistic_backward = logistic_backward<T>;
  table.mixture_forward = mixture_forward<T>;
  table.mixture_backward = mixture_backward<T>;
  table.gaussian_forward = gaussian_forward<T>;
  table.gaussian_backward = gaussian_backward<T>;
  table.paired_forward = paired_forward<T>;
  table.paired_weight_gradient = paired_weight_gradient<T>;
  table.lipswish_forward = lipswish_forward<T>;
  table.lipswish_backward = lipswish_backward<T>;
  table.lipswish_double_backward = lipswish_double_backward<T>;
  fill_splines<T, Scheme::nflows>(table);
  fill_splines<T, Scheme::zuko>(table);
  table.masked_forward = masked_product<true, T>;
  table.masked_backward = masked_product<false, T>;
  table.masked_gradient = masked_gradient<T>;
  table.adamax_step = adamax_step<T>;
  return table;
}

}  // namespace hk::HK_ISA
