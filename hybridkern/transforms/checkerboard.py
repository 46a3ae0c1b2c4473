"""The couplings of RealNVP between two changes of scale: checkerboard masks, then channel masks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hybridkern.ops.affine_coupling.form import CouplingForm
from hybridkern.transforms.affine_coupling import AffineCoupling
from hybridkern.transforms.squeeze import Pair


def rows_to_colors(upper: Tensor, lower: Tensor) -> Pair:
    """Halves as :func:`~hybridkern.transforms.squeeze` gives them -> the black and the white pixels of a checkerboard.

    All are ``(B, 2C, h, w)``: of each block of 2x2 pixels, black are the upper left and the lower right one.
    """
    (a, b), (c, d) = upper.chunk(2, 1), lower.chunk(2, 1)
    return torch.cat([a, d], 1), torch.cat([b, c], 1)


def colors_to_rows(black: Tensor, white: Tensor) -> Pair:
    """Undoes :func:`rows_to_colors`."""
    (a, d), (b, c) = black.chunk(2, 1), white.chunk(2, 1)
    return torch.cat([a, b], 1), torch.cat([c, d], 1)


class ImageCouplings(nn.Module):
    """Couplings that transform the black and the white pixels in turn, then the channels of upper and lower rows.

    A mask leaves half of what a network would see, and compute, empty. Here the pixels of one color lie densely in
    blocks of 2x2, as channels at half the resolution: the same dependencies without the empty half.

    Args:
        channels: channels ``C`` of the image.
        checkerboard, channelwise: number of couplings of each kind.
        net: builds a coupling network from its numbers of input and output channels.
        form: affine form of the couplings.

    Source: Dinh et al. 2017 (arXiv:1605.08803), sections 3.4 and 3.6.
    """

    def __init__(
        self,
        channels: int,
        checkerboard: int,
        channelwise: int,
        net: Callable[[int, int], nn.Module],
        form: CouplingForm,
    ) -> None:
        super().__init__()
        half = 2 * channels
        outputs = 2 * half if form.has_scale else half
        kinds = (checkerboard, channelwise)
        self.checkerboard, self.channelwise = (
            nn.ModuleList(AffineCoupling(net(half, outputs), form) for _ in range(count)) for count in kinds
        )

    def forward(self, state: Pair, log_det: Tensor, *, inverse: bool = False) -> tuple[Pair, Tensor]:
        """Data -> latent, or back, on halves ``(B, 2C, h, w)`` as :func:`~hybridkern.transforms.squeeze` gives them."""
        if inverse:
            state, log_det = _in_turn(self.channelwise, state, log_det, True)
            state, log_det = _in_turn(self.checkerboard, rows_to_colors(*state), log_det, True)
            return colors_to_rows(*state), log_det
        state, log_det = _in_turn(self.checkerboard, rows_to_colors(*state), log_det, False)
        return _in_turn(self.channelwise, colors_to_rows(*state), log_det, False)


def _in_turn(couplings: nn.ModuleList, state: Pair, log_det: Tensor, inverse: bool) -> tuple[Pair, Tensor]:
    halves = list(state)
    order = range(len(couplings))
    for i in reversed(order) if inverse else order:
        fixed, changed = i % 2, 1 - i % 2
        halves[changed], log_det = couplings[i](halves[changed], halves[fixed], log_det, inverse=inverse)
    return (halves[0], halves[1]), log_det
