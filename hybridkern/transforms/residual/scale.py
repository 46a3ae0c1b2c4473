"""The layers of one scale: a scale and a shift for each channel, then residual layers, each followed by another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from hybridkern.lipschitz import Weights
from hybridkern.transforms.channel_norm import ChannelNorm
from hybridkern.transforms.residual.block import ResidualBlock

# of a block and its input: its output and the log-determinant (B,)
Step = Callable[[ResidualBlock, Tensor], tuple[Tensor, Tensor]]


class ResidualScale(nn.Module):
    """Residual layers on tensors of one shape.

    Args:
        channels: channels, or dimensions of vectors.
        nets: networks of the layers; see :class:`ResidualBlock`.
    """

    def __init__(self, channels: int, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        self.first = ChannelNorm(channels)
        self.blocks = nn.ModuleList(ResidualBlock(net) for net in nets)
        self.norms = nn.ModuleList(ChannelNorm(channels) for _ in nets)

    def _layers(self) -> list[tuple[ResidualBlock, ChannelNorm]]:
        return [
            (cast(ResidualBlock, block), cast(ChannelNorm, norm))
            for block, norm in zip(self.blocks, self.norms, strict=True)
        ]

    def forward(self, x: Tensor, log_det: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Data -> latent; ``log_det`` ``(B,)`` plus that of the layers."""
        x, own = self.first(x)
        log_det = log_det + own
        for block, norm in self._layers():
            x, of_block = step(block, x)
            x, own = norm(x)
            log_det = log_det + of_block + own
        return x, log_det

    def inverse(self, y: Tensor, log_det: Tensor, weights: Weights, step: Step) -> tuple[Tensor, Tensor]:
        """Latent -> data; ``step`` gives the log-determinants of the blocks forward."""
        for block, norm in reversed(self._layers()):
            y, own = norm.inverse(y)
            y = block.inverse(y, weights)
            log_det = log_det + own - step(block, y)[1]
        y, own = self.first.inverse(y)
        return y, log_det + own

    @torch.no_grad()
    def initialize(self, x: Tensor, weights: Weights) -> Tensor:
        """Starts every norm from data in turn; returns what comes out."""
        self.first.initialize(x)
        x = self.first(x)[0]
        for block, norm in self._layers():
            x = x + block.net(x, weights)
            norm.initialize(x)
            x = norm(x)[0]
        return x
