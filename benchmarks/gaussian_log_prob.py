"""``gaussian_log_prob`` against the eager formula of VincentStimper/normalizing-flows (``DiagGaussian.log_prob``)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks._case import Work
from hybridkern import ops


def ours(x: Tensor, mean: Tensor, log_scale: Tensor) -> tuple[Tensor]:
    """Log-density of each example."""
    return (ops.gaussian_log_prob(x, mean, log_scale),)


def eager(x: Tensor, mean: Tensor, log_scale: Tensor) -> tuple[Tensor]:
    """The constant apart, the rest summed over each example."""
    terms = log_scale + 0.5 * torch.pow((x - mean) / torch.exp(log_scale), 2)
    return (-0.5 * x.shape[1] * math.log(2 * math.pi) - torch.sum(terms, 1),)


def work(batch: int, dim: int) -> Work:
    """``x`` ``(batch, dim)``, parameters ``(1, dim)`` as of a base distribution."""
    return Work(ours, eager, (torch.randn(batch, dim), torch.randn(1, dim), torch.randn(1, dim) * 0.5))
