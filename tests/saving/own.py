"""What a user of the package writes: classes and functions at the top of a module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hybridkern import flows
from hybridkern.distributions import DiagonalGaussian


def convolution(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Conv2d(in_channels, out_channels, 1)


class Embedding(nn.Module):
    def __init__(self, width: int, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.layer = nn.Linear(3, width)

    def init_arguments(self) -> dict[str, Any]:
        return {"width": self.layer.out_features, "factor": self.factor}

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.layer(x)


class Secretive(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(3, width)


class Shifted(DiagonalGaussian):
    def __init__(self, dim: int, by: float = 0.0) -> None:
        super().__init__(dim)
        self.by = by

    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x - self.by)


class Doubling(flows.Flow):
    """A flow of one's own."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, DiagonalGaussian(dim))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return 2 * x, x.new_full((len(x),), self.dim * torch.tensor(2.0).log().item())

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z / 2, z.new_full((len(z),), -self.dim * torch.tensor(2.0).log().item())
