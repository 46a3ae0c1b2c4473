"""``discretized_logistic_mixture_log_prob`` against eager PyTorch.

The mixture as openai/vdvae has it (``discretized_mix_logistic_loss``: log-softmax weights, logsumexp over the
components), its components as jornpeters/integer_discrete_flows has them, without the edge bins of images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks._case import Work
from benchmarks.discretized_logistic import integers_near
from benchmarks.tutorial import log_integer_probability
from hybridkern import ops


def ours(x: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor) -> tuple[Tensor]:
    """Log-probability of each example."""
    return (ops.discretized_logistic_mixture_log_prob(x, logits, mean, log_scale, reduction="sum"),)


def eager(x: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor) -> tuple[Tensor]:
    """``logsumexp(log_softmax(logits) + log p_k)``, summed over each example."""
    log_p = log_integer_probability(x.unsqueeze(1), mean, log_scale)
    return (torch.logsumexp(torch.log_softmax(logits, 1) + log_p, 1).sum(1),)


def work(batch: int, dim: int, components: int = 5) -> Work:
    """``x`` ``(batch, dim)``, parameters ``(batch, components, dim)``; ``x`` is drawn around the first component."""
    shape = (batch, components, dim)
    logits, mean, log_scale = torch.randn(shape), torch.randn(shape), torch.rand(shape) * 2
    x = integers_near(mean[:, 0], log_scale[:, 0], batch, dim)
    return Work(ours, eager, (x, logits, mean, log_scale))
