"""Discretized logistic log-probability in plain PyTorch.

With ``v = (x - mean) / scale`` and ``h = bin / (2 scale)`` the logistic's mass in ``[x - bin/2, x + bin/2]`` is
``(1 - exp(-2h)) sigma(h - v) sigma(h + v)``: symmetric in ``v`` without its absolute value, so that every derivative at
``x = mean`` is right, and with no difference of two nearly equal numbers, hence exact in both tails.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hybridkern._precision import like, per_example, wide
from hybridkern._tensors import total_dtype
from hybridkern.ops._bounds import at_least, at_most, held, log_sigmoid

# Log-scales beyond are held there, as in the kernels: below, the bin holds everything or nothing; above, the mass is
# proportional to 1 / scale. The bounds come before the exponential, so that neither the formulas nor their gradients
# meet 0 * infinity.
MIN_LOG_SCALE, MAX_LOG_SCALE = -69.0, 60.0
_FINITE = 1e300


def _log_bin_mass(log_scale: Tensor, inverse_scale: Tensor, bin_width: float) -> Tensor:
    """``log(1 - exp(-2h))``, ``2h = bin / scale``, for every scale."""
    h2 = bin_width * inverse_scale
    tiny = at_most(h2, 1e-2)
    series = -tiny / 2 + tiny**2 / 24 - tiny**4 / 2880  # log((1 - exp(-t)) / t)
    middle = at_most(at_least(h2, 1e-2), 1.0)
    quotient = torch.log(-torch.expm1(-middle) / middle)
    narrow = math.log(bin_width) - log_scale + torch.where(h2 < 1e-2, series, quotient)
    return torch.where(h2 < 1.0, narrow, torch.log1p(-torch.exp(-at_least(h2, 1.0))))


def elementwise_log_prob(x: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float) -> Tensor:
    """The log-probability of each element, in the precision of the arguments."""
    inverse_scale = torch.exp(-held(log_scale, MIN_LOG_SCALE, MAX_LOG_SCALE))
    distance, half = x - mean, bin_width / 2
    # where x is infinite, one factor is 1 whatever the scale: its derivatives must not be 0 * infinity
    below = at_most(half - distance, _FINITE) * inverse_scale
    above = at_most(half + distance, _FINITE) * inverse_scale
    return _log_bin_mass(log_scale, inverse_scale, bin_width) + log_sigmoid(below) + log_sigmoid(above)


def reduce(log_p: Tensor, x: Tensor, reduction: str) -> Tensor:
    """``log_p`` summed over each example (``"sum"``) or as it is, in the dtype the operator returns."""
    return per_example(log_p).to(total_dtype(x)) if reduction == "sum" else like(log_p, x)


def discretized_logistic_log_prob(
    x: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float, reduction: str
) -> Tensor:
    """See :func:`hybridkern.ops.discretized_logistic_log_prob`; arguments are taken as valid."""
    return reduce(elementwise_log_prob(wide(x), wide(mean), wide(log_scale), bin_width), x, reduction)
