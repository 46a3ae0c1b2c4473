// The operators with gradients, for ordinary CPU tensors; nullopt where a call is not theirs (node.h, may_serve).
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace hk::nodes {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using OptionalPair = std::optional<std::tuple<Tensor, Tensor>>;

OptionalPair affine_coupling(const Tensor& x, const Tensor& params, const OptionalTensor& log_det, int64_t code,
                             double clamp, double offset, double eps, double gain, double shift_gain);
OptionalPair affine_coupling_actnorm(const Tensor& x, const Tensor& params, const Tensor& scale, const Tensor& offset,
                                     int64_t code, double clamp, double form_offset, double eps, double gain,
                                     double shift_gain);
OptionalTensor rounding_coupling(const Tensor& x, const Tensor& t, const OptionalTensor& beta, bool inverse);

OptionalPair mirrored_halves(const Tensor& a, const Tensor& b, const Tensor& t, const Tensor& beta, int64_t index,
                             bool lattice);
OptionalTensor mirrored_joined(const Tensor& a, const Tensor& b, const Tensor& t, const Tensor& beta, int64_t index,
                               bool lattice);
OptionalPair mirrored_with_prior(const Tensor& a, const Tensor& b, const Tensor& t, const Tensor& beta,
                                 const Tensor& mean, const Tensor& log_scale, int64_t index, bool lattice);

OptionalTensor discretized_logistic(const Tensor& x, const Tensor& mean, const Tensor& log_scale, double bin_width,
                                    bool reduce);
OptionalTensor discretized_logistic_mixture(const Tensor& x, const Tensor& logits, const Tensor& mean,
                                            const Tensor& log_scale, double bin_width, bool reduce);
OptionalTensor gaussian_log_prob(const Tensor& x, const OptionalTensor& mean, const OptionalTensor& log_scale);

}  // namespace hk::nodes
