"""A scale and a shift for each channel, started from data."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hybridkern._arguments import as_size
from hybridkern._ranks import std_mean_over_ranks
from hybridkern._tensors import total_dtype


class ChannelNorm(nn.Module):
    """``y = exp(log_scale) * x + shift`` for each channel of ``(B, C, *S)``; the identity at the start.

    Args:
        channels: number of channels, or of dimensions of vectors.

    Raises:
        TypeError, ValueError: not a positive integer.

    Source: Kingma and Dhariwal 2018 (arXiv:1807.03039), section 3.1, where it is called actnorm.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        channels = as_size("channels", channels)
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Starts so that each channel of ``y`` has mean 0 and standard deviation 1; a constant one keeps its scale.

        Over the data of all ranks where ``torch.distributed`` runs.
        """
        std, mean = std_mean_over_ranks(x.double(), [0, *range(2, x.ndim)])
        log_scale = torch.where(std < 1e-6, 0.0, -std.log())
        self.log_scale.copy_(log_scale)
        self.shift.copy_(-mean * log_scale.exp())

    def _over(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scale and shift against ``x``, and the log-determinant ``()``."""
        shape = (-1, *(1,) * (x.ndim - 2))
        log_det = self.log_scale.to(total_dtype(x)).sum() * math.prod(x.shape[2:])
        return self.log_scale.exp().view(shape), self.shift.view(shape), log_det

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``y`` and the log-determinant ``()`` that each example has."""
        scale, shift, log_det = self._over(x)
        return x * scale + shift, log_det

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """``x`` and the log-determinant ``()`` of this direction."""
        scale, shift, log_det = self._over(y)
        return (y - shift) / scale, -log_det
