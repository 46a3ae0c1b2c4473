"""Activations whose slope is at most one, as modules with a learnt steepness."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridkern import ops
from hybridkern.ops.lipswish.reference import PAIR_SLOPE, SLOPE


def _slope(x: Tensor, beta: Tensor) -> Tensor:
    """Derivative of ``x sigmoid(softplus(beta) x)``."""
    by = F.softplus(beta) * x
    gate = by.sigmoid()
    return gate * (1 + by * (1 - gate))


class LipSwish(nn.Module):
    """``x sigmoid(softplus(beta) x) / 1.1`` with one learnt ``beta``, from 0.5.

    Source: Chen et al. 2019 (arXiv:1906.02735), section 3.3; see :func:`hybridkern.ops.lipswish`.
    """

    widening = 1

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Like ``x``."""
        return ops.lipswish(x, self.beta)

    def tangents(self, x: Tensor, directions: Tensor) -> Tensor:
        """Directional derivatives at ``x`` ``(B, *S)``, in directions ``(B, K, *S)`` and like them."""
        return (_slope(x, self.beta) / SLOPE)[:, None] * directions


class ClipSwish(nn.Module):
    """``(lipswish(x), lipswish(-x)) / 1.004`` with one learnt ``beta``: twice the channels.

    Source: Perugachi-Diaz et al. 2021 (arXiv:2102.02694), section 3.3; see :func:`hybridkern.ops.clipswish`.
    """

    widening = 2

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S)`` -> ``(B, 2C, *S)``."""
        return ops.clipswish(x, self.beta)

    def tangents(self, x: Tensor, directions: Tensor) -> Tensor:
        """Directional derivatives at ``x`` ``(B, C, *S)``: of ``(B, K, C, *S)``, ``(B, K, 2C, *S)``."""
        slopes = torch.cat((_slope(x, self.beta), -_slope(-x, self.beta)), 1) / (SLOPE * PAIR_SLOPE)
        return slopes[:, None] * torch.cat((directions, directions), 2)


ACTIVATIONS: dict[str, type[LipSwish] | type[ClipSwish]] = {"lipswish": LipSwish, "clipswish": ClipSwish}
