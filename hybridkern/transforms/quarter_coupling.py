"""The coupling of IDF++: a quarter of the channels shifted by integers computed from the rest, wherever they stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from hybridkern import ops
from hybridkern._arguments import as_builder, as_size, built
from hybridkern._precision import wide
from hybridkern.nets.prediction import start_at_shift
from hybridkern.transforms.lattice import evaluate
from hybridkern.transforms.permute import Permutation

# Where the factor starts. Not at 0: with a network that ends in zero weights nothing would have a gradient.
_FIRST_FACTOR = 0.1


class QuarterCoupling(nn.Module):
    """``y = x + round(beta net(rest))`` for a quarter of the channels, chosen by a permutation that is undone again.

    Undone, so that channels keep their meaning for the split of a level.

    Args:
        channels: at least 4.
        net: builds the network: ``net(channels that stay, channels that are shifted)``.

    Raises:
        TypeError, ValueError: an argument of the wrong type or range.

    Source: van den Berg et al. 2021 (arXiv:2006.12459), section 5: the permutation undone, and ``beta`` (ReZero).
    """

    def __init__(self, channels: int, net: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        channels = as_size("channels", channels, 4)
        as_builder("net", net, "a callable (in_features, out_features) -> nn.Module")
        moved = channels // 4
        self.sizes = (channels - moved, moved)
        self.permutation = Permutation(channels)
        self.net = built("net", net(*self.sizes))
        self.beta = nn.Parameter(torch.full((), _FIRST_FACTOR))

    def forward(self, x: Tensor, *, inverse: bool = False, exact: bool = False) -> Tensor:
        """Data -> latent, or back.

        Args:
            x: ``(B, channels, H, W)``.
            inverse: undo the coupling.
            exact: evaluate the network in float64; ``x`` is float64 then.
        """
        kept, moved = self.permutation(x).split(self.sizes, 1)
        t = evaluate(self.net, kept) if exact else self.net(kept)
        moved = ops.rounding_coupling(moved, t, beta=wide(self.beta) if exact else self.beta, inverse=inverse)
        y: Tensor = self.permutation(torch.cat([kept, moved], 1), inverse=True)
        return y

    def initialize(self, x: Tensor, predicted: Tensor) -> None:
        """Starts the network so that the shift takes the best linear prediction from the channels that move.

        A network that has no such start, or gives other values than zeros by now, stays as it is.

        Args:
            x: what the coupling sees, ``(N, channels, H, W)``.
            predicted: the channels, of all of them, for which it may do so.
        """
        kept, moved = self.permutation(x).split(self.sizes, 1)
        channels = self.permutation.order[self.sizes[0] :]
        start_at_shift(self.net, kept, moved, channels, predicted, self.beta)


class QuarterCouplings(nn.ModuleList):
    """``layers`` of :class:`QuarterCoupling` in a row. Four in a row shift every channel once."""

    def __init__(self, channels: int, layers: int, net: Callable[[int, int], nn.Module]) -> None:
        super().__init__(QuarterCoupling(channels, net) for _ in range(layers))
        for i, coupling in enumerate(self):
            if i % 4 == 0:
                order = torch.randperm(channels)
            cast("QuarterCoupling", coupling).permutation.order.copy_(order.roll(-(i % 4 + 1) * (channels // 4)))

    def forward(self, x: Tensor, exact: bool = False, *, inverse: bool = False) -> Tensor:
        """Data -> latent, or back."""
        for coupling in reversed(self) if inverse else self:
            x = coupling(x, inverse=inverse, exact=exact)
        return x
