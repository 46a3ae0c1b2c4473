"""Log-probability of a mixture of discretized logistics in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern._precision import wide
from hybridkern.ops._bounds import log_sum_exp
from hybridkern.ops.discretized_logistic.reference import elementwise_log_prob, reduce


def discretized_logistic_mixture_log_prob(
    x: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float, reduction: str
) -> Tensor:
    """See :func:`hybridkern.ops.discretized_logistic_mixture_log_prob`; arguments are taken as valid."""
    component = elementwise_log_prob(wide(x).unsqueeze(1), wide(mean), wide(log_scale), bin_width)
    log_weight = torch.log_softmax(wide(logits), dim=1)
    # the largest component first: far out the weights would vanish beside it
    top = component.detach().amax(1, keepdim=True)
    top = torch.where(top.isinf(), 0.0, top)
    return reduce(log_sum_exp(log_weight + (component - top), 1) + top.squeeze(1), x, reduction)
