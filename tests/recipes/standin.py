"""A tiny flow with the interface of ``flows.Glow``, so that the tests of recipes do not wait for a large one.

Two affine couplings on the channels of a squeezed image, a data-dependent scale, and levels of one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridkern.distributions import DiagonalGaussian
from hybridkern.flows.base import Flow


class TinyFlow(Flow):
    def __init__(self, shape: tuple[int, int, int], *, hidden: int = 8, memory: str = "store", **options: Any) -> None:
        channels, height, width = shape
        super().__init__(channels * height * width, DiagonalGaussian(channels * height * width))
        self.shape = (4 * channels, height // 2, width // 2)
        half = 2 * channels
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Conv2d(half, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, 2 * half, 3, padding=1))
            for _ in range(2)
        )
        self.bias = nn.Parameter(torch.zeros(1, 4 * channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(1, 4 * channels, 1, 1))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        x = F.pixel_unshuffle(x, 2)
        self.bias.copy_(-x.mean((0, 2, 3), keepdim=True))
        self.log_scale.copy_(-x.std((0, 2, 3), keepdim=True).clamp(min=1e-3).log())

    def _parameters_of(self, net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = net(x).float().chunk(2, 1)
        return shift, torch.tanh(raw)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = (F.pixel_unshuffle(x, 2) + self.bias) * self.log_scale.exp()
        log_det = (self.log_scale.sum() * x[0, 0].numel()).expand(len(x))
        a, b = x.chunk(2, 1)
        for net in self.nets:
            shift, log_s = self._parameters_of(net, a)
            a, b = b * log_s.exp() + shift, a
            log_det = log_det + log_s.flatten(1).sum(1)
        return torch.cat([a, b], 1).flatten(1), log_det

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        a, b = z.view(len(z), *self.shape).chunk(2, 1)
        log_det = (-self.log_scale.sum() * a[0, 0].numel()).expand(len(z))
        for net in reversed(list(self.nets)):
            shift, log_s = self._parameters_of(net, b)
            a, b = b, (a - shift) * (-log_s).exp()
            log_det = log_det - log_s.flatten(1).sum(1)
        x = torch.cat([a, b], 1) * (-self.log_scale).exp() - self.bias
        return F.pixel_shuffle(x, 2), log_det

    def latents(self, z: Tensor) -> list[Tensor]:
        half = self.dim // 2
        return [z[:, :half], z[:, half:]]
