"""Activations whose slope is at most one, as modules with a learnt steepness."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hybridkern import ops


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


ACTIVATIONS: dict[str, type[LipSwish] | type[ClipSwish]] = {"lipswish": LipSwish, "clipswish": ClipSwish}
