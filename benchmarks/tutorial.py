"""The tutorial's formulas, stated anew in eager PyTorch: the side that ``HybridIDF`` is timed against.

After J. M. Tomczak, "Deep Generative Modeling", hybrid modeling (jmtomczak/intro_dgm, ``hybrid_example``); the
rounding and ``log_min_exp`` come from jornpeters/integer_discrete_flows. Only what a training step runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RoundStraightThrough(torch.autograd.Function):
    """Rounding with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        return torch.round(t)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.clone()


def log_min_exp(a: Tensor, b: Tensor, epsilon: float = 1e-8) -> Tensor:
    """``log(exp(a) - exp(b))`` for ``b < a``, with a floor."""
    return a + torch.log(1 - torch.exp(b - a) + epsilon)


def log_integer_probability(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log of the logistic's mass in ``[x - 1/2, x + 1/2]``."""
    scale = torch.exp(log_scale)
    return log_min_exp(F.logsigmoid((x + 0.5 - mean) / scale), F.logsigmoid((x - 0.5 - mean) / scale))


class Tutorial(nn.Module):
    """The tutorial's ``HybridIDF`` with one kind of network; names of parameters as there.

    Args:
        nets: one network per flow.
        classnet: gives class probabilities.
        alpha: weight of the likelihood.
        dim: dimensions of an example.
    """

    def __init__(self, nets: Sequence[nn.Module], classnet: nn.Module, alpha: float, dim: int) -> None:
        super().__init__()
        self.t = nn.ModuleList(nets)
        self.beta = nn.Parameter(torch.zeros(len(nets)))
        self.classnet = classnet
        self.mean = nn.Parameter(torch.zeros(1, dim))
        self.logscale = nn.Parameter(torch.ones(1, dim))
        self.alpha = alpha
        self.round = RoundStraightThrough.apply
        self.nll = nn.NLLLoss(reduction="none")

    def coupling(self, x: Tensor, index: int) -> Tensor:
        xa, xb = torch.chunk(x, 2, 1)
        yb = xb + self.beta[index] * self.round(self.t[index](xa))
        return torch.cat((xa, yb), 1)

    def f(self, x: Tensor) -> Tensor:
        """Data -> latent."""
        z = x
        for index in range(len(self.t)):
            z = self.coupling(z, index).flip(1)
        return z

    def log_prior(self, z: Tensor) -> Tensor:
        return log_integer_probability(z, self.mean, self.logscale).sum(1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The training loss."""
        z = self.f(x)
        probabilities = self.classnet(z)
        idf_loss = -self.log_prior(z)
        class_loss = self.nll(torch.log(probabilities), y)
        return (class_loss + self.alpha * idf_loss).mean()
