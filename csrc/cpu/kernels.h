// The inner loops of the CPU kernels: plain arrays of the working type, one table of them an instruction set.
//
// The operators (one file each beside this one) bring any dtype and layout to such arrays, block by block, and choose
// the table once. A block has at most `block_size` elements.
#pragma once

#include <cstdint>

#include "../affine_coupling/form.h"
#include "../masked_network/network.h"

namespace hk {

constexpr int64_t block_size = 1024;

template <class T>
struct BinConstants {
  T width, half, half_low;
};

template <class T>
struct CouplingBlock {
  const T *known, *a, *t;  // known: x, or y when going backward from it; a is unused without scale
  const T* grad_y;         // nullptr: zero
  T grad_log_det;
  T *y, *x, *grad_x, *grad_a, *grad_t;  // x: nullptr unless recovered
  bool stream;                          // write past the cache
  int64_t n;
};

// Rows of `width` elements, the last `coupled` of which go through a coupling, and all through scale and offset then.
template <class T>
struct ActnormRows {
  const T *x, *params;  // rows x_stride and params_stride apart
  int64_t x_stride, params_stride;
  int64_t a_place, t_place;        // where raw scales and raw shifts begin in a row of parameters
  const T *scale, *offset;         // [width]
  T* y;                            // [rows][width]
  double* log_dets;                // [rows]: sums of log s
  const T *grad_y, *grad_log_det;  // rows grad_y_stride apart; [rows]
  int64_t grad_y_stride;
  T *grad_x, *grad_params;      // [rows][width], [rows][2 coupled]
  T *grad_scale, *grad_offset;  // [width]; added to
  int64_t rows, width, coupled;
};

// Of parameters that the batch shares, what depends on them alone: arrays `stride` apart, holding the parts of
// ScalePart (discretized_logistic/math.h) and, last, log(mass) - excess.
constexpr int prepared_arrays = 5;

template <class T>
struct LogisticBlock {
  const T *x, *mean, *log_scale;
  const T* prepared;  // nullptr: from log_scale
  int64_t stride;
  const T* grad;  // nullptr: `grad_each` for every element
  T grad_each;
  T* out;  // nullptr: only the sum is wanted
  T *grad_x, *grad_mean, *grad_log_scale;
  bool accumulate;  // add to the parameters' gradients instead of writing them
  int64_t n;
};

template <class T>
struct MixtureBlock {
  const T* x;
  const T *const *logits, *const *mean, *const *log_scale;  // one array a component
  const T* grad;
  T grad_each;
  T* out;
  T* grad_x;
  T *const *grad_logits, *const *grad_mean, *const *grad_log_scale;
  bool accumulate;
  bool stream;                                   // write past the cache
  const char *const *next_in, *const *next_out;  // the 3K arrays of the next block, to be prefetched; or nullptr
  T* scratch;                                    // mixture_slots * components * max_lanes, 64-byte aligned
  int64_t components, n;
};
constexpr int64_t max_lanes = 32, mixture_slots = 6;

template <class T>
struct GaussianBlock {
  const T *x, *mean, *log_scale;  // mean, log_scale: nullptr is zero
  T grad_each;
  T *grad_x, *grad_mean, *grad_log_scale;  // the latter two: nullptr if not wanted
  bool accumulate;
  int64_t n;
};

// Pixels of two halves of `channels` each, mixed by one matrix. Outputs are padded to whole vectors, half by half.
template <class T>
struct PairedBlock {
  const T *first, *second;    // [n][channels]
  const T* weight;            // [tile][2 channels inputs][half][lanes]
  const T* bias;              // [tile][half][lanes]
  T *out_first, *out_second;  // [n][channels], and room for max_lanes more
  int64_t channels, n;
};

template <class T>
struct PairedGradientBlock {
  const T *first, *second;            // [n][channels]
  const T *grad_first, *grad_second;  // [n][channels], readable for max_lanes more
  T* sums;                            // [2 channels inputs, and the bias][half][tiles * lanes]; written
  int64_t channels, n;
};

// Splines of `n` elements. The raw parameters of an element lie together (`records`), or are `stride` apart, and those
// of the elements beside each other; so do their gradients.
template <class T>
struct SplineBlock {
  const T *x, *params;
  int64_t stride;
  bool records;
  T *y, *log_slope;
  const T *grad_y, *grad_log_slope;  // grad_y: nullptr is zero
  T *grad_x, *grad_params;
  T* scratch;  // SplineConstants::scratch() numbers, 64-byte aligned
  int64_t n;
};

template <class T>
struct SplineConstants {
  int64_t bins, derivatives;
  int64_t fixed_ends;     // 1: the derivative at both ends is 1; 0: it is trained
  bool ties_ends, wraps;  // one derivative at both ends; values are turned by half the interval
  T low, high, middle, range, inverse_range;
  T share[2], floor[2];  // of widths and heights, as parts of the interval: floor + share * softmax
  T gain, beta, inverse_beta, least;
  T inverse_clip;  // 1/-log(least), of the clipped scheme

  int64_t numbers() const { return 2 * bins + derivatives; }
  int64_t scratch() const { return (2 * numbers() + 8 * bins) * max_lanes; }
};

template <class T>
struct LipswishBlock {
  const T *x, *grad, *grad_pair, *outer;  // grad_pair: nullptr without the second half; outer: nullptr is zero
  T b, scale, outer_b;
  T *out, *out_pair;          // the value, or what belongs to x
  T *to_grad, *to_grad_pair;  // of the backward pass of the backward pass
  int64_t n;
};

template <class T>
struct AdamaxBlock {
  T *param, *exp_avg, *exp_inf;
  const T* grad;
  int64_t n;
};

template <class T>
struct AdamaxConstants {
  T rate, share, beta2, eps, weight_decay;  // share: 1 - beta1
};

template <class T>
struct Kernels {
  const char* name;
  int64_t lanes;
  // [map][negated][shift before the scale]; returns the block's sum of log s
  T (*coupling_forward[scale_maps][2][2])(const CouplingBlock<T>&, const CouplingForm<T>&);
  // [map][negated][shift before the scale][what is known: Known of affine_coupling/math.h]
  void (*coupling_backward[scale_maps][2][2][3])(const CouplingBlock<T>&, const CouplingForm<T>&);
  void (*actnorm_forward[scale_maps])(const ActnormRows<T>&, const CouplingForm<T>&);  // none without scale
  void (*actnorm_backward[scale_maps])(const ActnormRows<T>&, const CouplingForm<T>&);
  // y = x + sign * round(beta*t)
  void (*rounding_forward)(const T* x, const T* t, T beta, T sign, T* y, bool stream, int64_t n);
  // grad_t = factor * grad; returns the sum of grad * t
  T (*rounding_backward)(const T* grad, const T* t, T factor, T* grad_t, bool stream, int64_t n);
  void (*logistic_prepare)(const T* log_scale, T* prepared, int64_t stride, int64_t n, const BinConstants<T>&);
  // returns the block's sum
  T (*logistic_forward)(const LogisticBlock<T>&, const BinConstants<T>&);
  void (*logistic_backward)(const LogisticBlock<T>&, const BinConstants<T>&);
  T (*mixture_forward)(const MixtureBlock<T>&, const BinConstants<T>&);
  void (*mixture_backward)(const MixtureBlock<T>&, const BinConstants<T>&);
  T (*gaussian_forward)(const GaussianBlock<T>&);
  void (*gaussian_backward)(const GaussianBlock<T>&);
  void (*paired_forward)(const PairedBlock<T>&);
  void (*paired_weight_gradient)(const PairedGradientBlock<T>&);
  void (*lipswish_forward)(const LipswishBlock<T>&);
  T (*lipswish_backward)(const LipswishBlock<T>&);  // these two return the sums that belong to b
  T (*lipswish_double_backward)(const LipswishBlock<T>&);
  void (*masked_forward)(const MaskedProduct<T>&);
  void (*masked_backward)(const MaskedProduct<T>&);
  void (*masked_gradient)(const MaskedGradient<T>&);
  void (*adamax_step)(const AdamaxBlock<T>&, const AdamaxConstants<T>&);
  // [scheme][inverse][backward]
  void (*spline[2][2][2])(const SplineBlock<T>&, const SplineConstants<T>&);
};

const Kernels<float>& baseline_kernels();
const Kernels<double>& double_kernels();
#if defined(__x86_64__)
const Kernels<float>& avx2_kernels();
const Kernels<float>& avx512_kernels();
#endif

// The table for this processor (or the one that `choose_instruction_set` asked for).
template <class T>
const Kernels<T>& kernels();

const char* instruction_set();
bool choose_instruction_set(const char* name);  // false: this processor does not have it

}  // namespace hk
