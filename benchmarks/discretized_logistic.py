"""``discretized_logistic_log_prob`` against the eager formula of jornpeters/integer_discrete_flows."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks._case import Work
from benchmarks.tutorial import log_integer_probability
from hybridkern import ops

SCALES = 10  # |x - mean| / scale stays below: beyond, the eager formula falls onto its floor and slows down


def ours(x: Tensor, mean: Tensor, log_scale: Tensor) -> tuple[Tensor]:
    """Log-probability of each example."""
    return (ops.discretized_logistic_log_prob(x, mean, log_scale, reduction="sum"),)


def eager(x: Tensor, mean: Tensor, log_scale: Tensor) -> tuple[Tensor]:
    """``log_min_exp`` of two log-sigmoids, summed over each example."""
    return (log_integer_probability(x, mean, log_scale).sum(1),)


def integers_near(mean: Tensor, log_scale: Tensor, *shape: int) -> Tensor:
    """Integers of ``shape`` within ``SCALES`` scales of the means, to half a bin."""
    spread = torch.empty(shape).uniform_(-SCALES, SCALES)
    return (mean + log_scale.exp() * spread).round()


def work(batch: int, dim: int) -> Work:
    """``x`` ``(batch, dim)``, parameters ``(1, dim)``, scales from 1 to 7."""
    mean, log_scale = torch.randn(1, dim), torch.rand(1, dim) * 2
    return Work(ours, eager, (integers_near(mean, log_scale, batch, dim), mean, log_scale))
