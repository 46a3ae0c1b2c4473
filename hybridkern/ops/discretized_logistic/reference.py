"""Discretized logistic log-probability in plain PyTorch.

With ``u = |x - mean| / scale``, ``h = bin / (2 scale)``, ``w = u - h`` and ``b = u + h`` the logistic's mass in
``[x - bin/2, x + bin/2]`` is ``(1 - exp(-2h)) sigma(-w) sigma(b)``: symmetric in ``x - mean``, with no difference of
two nearly equal numbers, hence exact in both tails.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hybridkern._precision import like, per_example, total_dtype, wide
from hybridkern.ops._bounds import at_least, at_most

# Below this log-scale the mass is 0 or 1 to every digit. The bound comes before the exponential, so that neither the
# formulas nor their gradients meet 0 * infinity.
MIN_LOG_SCALE = -69.0


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
    inverse_scale = torch.exp(-at_least(log_scale, MIN_LOG_SCALE))
    distance = (x - mean).abs()
    below = (distance - bin_width / 2) * inverse_scale
    above = (distance + bin_width / 2) * inverse_scale
    return _log_bin_mass(log_scale, inverse_scale, bin_width) + F.logsigmoid(-below) + F.logsigmoid(above)


def reduce(log_p: Tensor, x: Tensor, reduction: str) -> Tensor:
    """``log_p`` summed over each example (``"sum"``) or as it is, in the dtype the operator returns."""
    return per_example(log_p).to(total_dtype(x)) if reduction == "sum" else like(log_p, x)


def discretized_logistic_log_prob(
    x: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float, reduction: str
) -> Tensor:
    """See :func:`hybridkern.ops.discretized_logistic_log_prob`; arguments are taken as valid."""
    return reduce(elementwise_log_prob(wide(x), wide(mean), wide(log_scale), bin_width), x, reduction)
