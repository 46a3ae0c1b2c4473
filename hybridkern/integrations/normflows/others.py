"""Layers of normflows that move numbers."""

from __future__ import annotations

import torch
from normflows.flows import mixing, reshape
from torch import Tensor

from hybridkern.integrations._channels import SMALL, permuted
from hybridkern.integrations._checkerboard import merge_checkerboard, split_checkerboard
from hybridkern.integrations._layer import Accelerated, Options
from hybridkern.integrations.normflows._halves import Pair


class Permute(Accelerated, mixing.Permute):
    """One pass in each direction of autograd; a few numbers are permuted by the library."""

    REPLACEMENT = "halves swapped without a copy; gather in forward and backward"

    @classmethod
    def obstacle(cls, layer: mixing.Permute) -> str:
        """Modes that the library does not know either."""
        return "" if layer.mode in ("shuffle", "swap") else f"the mode {layer.mode!r} is not 'shuffle' or 'swap'"

    def forward(self, z: Tensor, context: object = None) -> tuple[Tensor, Tensor]:
        """Latent -> data, as in the library."""
        done = self._moved(z, -(self.num_channels // 2), "perm", "inv_perm")
        return super().forward(z, context) if done is None else done

    def inverse(self, z: Tensor, context: object = None) -> tuple[Tensor, Tensor]:
        """Data -> latent, as in the library."""
        done = self._moved(z, self.num_channels // 2, "inv_perm", "perm")
        return super().inverse(z, context) if done is None else done

    def on_halves(self, halves: Pair, to_data: bool) -> tuple[Pair, None] | None:
        """Halves of equal size that are swapped cost nothing; ``None`` for others."""
        first, second = halves
        if self.mode != "swap" or first.shape != second.shape or 2 * first.shape[1] != self.num_channels:
            return None
        return (second, first), None

    def _moved(self, z: Tensor, shift: int, order: str, inverse: str) -> tuple[Tensor, Tensor] | None:
        if not isinstance(z, Tensor) or z.ndim < 2 or z.shape[1] != self.num_channels:
            return None
        if self.mode == "swap":
            return torch.roll(z, shift, 1), _zeros(z)
        if z.numel() < SMALL:
            return None
        return permuted(z, getattr(self, order), getattr(self, inverse)), _zeros(z)


def _zeros(z: Tensor) -> Tensor:
    """The log-determinant, in torch's default dtype as in the library."""
    return torch.zeros(len(z), device=z.device)


class Split(Accelerated, reshape.Split):
    """Checkerboards as strided slices, where the library builds index lists at every call."""

    REPLACEMENT = "strided slices"

    @classmethod
    def no_gain(cls, layer: reshape.Split, options: Options) -> str:
        """Splits of channels are views already."""
        return "" if "checkerboard" in layer.mode else "channels are split by views and joined by one copy already"

    def forward(self, z: Tensor) -> tuple[list[Tensor], int]:
        """One tensor -> two."""
        if z.numel() == 0:
            return super().forward(z)
        return list(split_checkerboard(z, inverted="inv" in self.mode)), 0

    def inverse(self, z: list[Tensor]) -> tuple[Tensor, int]:
        """Two tensors -> one."""
        z1, z2 = z
        if z1.numel() == 0:
            return super().inverse(z)
        return merge_checkerboard(z1, z2, inverted="inv" in self.mode), 0


class Merge(Accelerated, reshape.Merge):
    """:class:`Split` the other way round."""

    REPLACEMENT = "strided slices"

    @classmethod
    def no_gain(cls, layer: reshape.Merge, options: Options) -> str:
        """As in :class:`Split`."""
        return Split.no_gain(layer, options)

    def forward(self, z: list[Tensor]) -> tuple[Tensor, int]:
        """Two tensors -> one."""
        z1, z2 = z
        if z1.numel() == 0:
            return super().forward(z)
        return merge_checkerboard(z1, z2, inverted="inv" in self.mode), 0

    def inverse(self, z: Tensor) -> tuple[list[Tensor], int]:
        """One tensor -> two."""
        if z.numel() == 0:
            return super().inverse(z)
        return list(split_checkerboard(z, inverted="inv" in self.mode)), 0
