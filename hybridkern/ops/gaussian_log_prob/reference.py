"""Diagonal Gaussian log-probability in plain PyTorch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hybridkern._precision import per_example, wide
from hybridkern._tensors import total_dtype
from hybridkern.ops._bounds import held

# Log-scales below are held there: the inverse scale stays finite in float64, so that neither the density nor its
# gradients meet 0 * infinity.
MIN_LOG_SCALE = -700.0


def gaussian_log_prob(x: Tensor, mean: Tensor | None, log_scale: Tensor | None) -> Tensor:
    """See :func:`hybridkern.ops.gaussian_log_prob`; arguments are taken as valid."""
    z = wide(x) if mean is None else wide(x) - wide(mean)
    log_p = -0.5 * math.log(2 * math.pi) - 0.5 * z**2
    if log_scale is not None:
        log_s = wide(log_scale)
        log_p = -0.5 * math.log(2 * math.pi) - log_s - 0.5 * (z * torch.exp(-held(log_s, MIN_LOG_SCALE, math.inf))) ** 2
    return per_example(log_p).to(total_dtype(x))
