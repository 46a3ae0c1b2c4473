"""The levels of an integer flow on images: squeeze, rounding couplings over the channels, half of them factored out."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from hybridkern.flows._latents import Shape, back_through_levels, latent_shapes, through_levels
from hybridkern.flows._slices import Slices
from hybridkern.flows.base import NetBuilder
from hybridkern.transforms.quarter_coupling import QuarterCouplings
from hybridkern.transforms.rounding_coupling import RoundingCouplings

_BATCH = 256  # images that networks see at a time, when they start from data


class IntegerLevels(nn.Module):
    """A bijection between integer images and the latents of all levels, joined as other multi-scale flows join them.

    Args:
        shape: ``(C, H, W)`` of one image, ``H`` and ``W`` divisible by ``2**levels``.
        levels: number of levels.
        layers: rounding couplings a level.
        parts: parts of the channels that a coupling updates in turn, from 2 to ``4 C``; sizes differ by at most one.
            ``None``: couplings that update a quarter.
        net: builds a network: ``net(in_channels, out_channels)``.
        slices: of each level's latents, as they are joined.

    Source: Hoogeboom et al. 2019 (arXiv:1905.07376), section 3.2 and figure 4.
    """

    def __init__(
        self, shape: Shape, levels: int, layers: int, parts: int | None, net: NetBuilder, slices: int = 1
    ) -> None:
        super().__init__()
        self.slices = Slices(latent_shapes(shape, levels), slices)
        self.levels = nn.ModuleList()
        for i in range(levels):
            channels = 4 * shape[0] * 2**i
            if parts is None:
                self.levels.append(QuarterCouplings(channels, layers, net))
                continue
            sizes = [channels // parts + (j < channels % parts) for j in range(parts)]
            self.levels.append(RoundingCouplings(sizes, layers, net))

    def forward(self, x: Tensor, exact: bool = False, *, inverse: bool = False) -> Tensor:
        """Images ``(B, C, H, W)`` -> latents ``(B, D)``, or back; ``exact`` as for its couplings."""
        if inverse:
            return back_through_levels(
                self.slices.split(x), lambda i, state: self.levels[i](state, exact, inverse=True)
            )
        return self.slices.join(through_levels(x, len(self.levels), lambda i, state: self.levels[i](state, exact)))

    def latents(self, x: Tensor) -> Tensor:
        """Of many images ``(N, C, H, W)``, some at a time: ``(N, D)``."""
        return torch.cat([self(part) for part in x.split(_BATCH)])

    def initialize(self, x: Tensor) -> Tensor:
        """Starts the networks from images ``(N, C, H, W)``, one after the other, and returns the latents.

        Only channels that leave a level are predicted: those that go on are what the others are predicted from, in the
        prior too, and have levels of their own.
        """
        last = len(self.levels) - 1

        def run(i: int, state: Tensor) -> Tensor:
            channels = state.shape[1]
            leaving = torch.arange(0 if i == last else channels // 2, channels, device=x.device)
            for coupling in cast("nn.ModuleList", self.levels[i]):
                coupling.initialize(state, leaving)  # type: ignore[operator]
                state = torch.cat([coupling(part) for part in state.split(_BATCH)])
            return state

        return self.slices.join(through_levels(x, last + 1, run))
