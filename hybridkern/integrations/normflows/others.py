"""Layers of normflows that move numbers or scale channels."""

from __future__ import annotations

import torch
from normflows.flows import mixing, normalization, reshape
from torch import Tensor

from hybridkern.integrations._channels import affine_channels, permuted, squeezed, unsqueezed
from hybridkern.integrations._checkerboard import merge_checkerboard, split_checkerboard
from hybridkern.integrations._layer import Accelerated
from hybridkern.integrations.normflows._halves import Pair


class ActNorm(Accelerated, normalization.ActNorm):
    """Scale and shift in one pass; initialization from data is the library's."""

    REPLACEMENT = "scale and shift in one pass"

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent -> data, as in the library."""
        if not self.data_dep_init_done > 0.0:
            return super().forward(z)
        return affine_channels(z, self.s.exp(), self.t), self._log_det(z)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Data -> latent, as in the library."""
        if not self.data_dep_init_done:
            return super().inverse(z)
        scale = torch.exp(-self.s)
        return affine_channels(z, scale, -self.t * scale), -self._log_det(z)

    def _log_det(self, z: Tensor) -> Tensor:
        repeated = 1
        for dim in self.batch_dims[1:]:
            repeated *= z.size(dim)
        return repeated * self.s.sum()


class Permute(Accelerated, mixing.Permute):
    """One pass in each direction of autograd."""

    REPLACEMENT = "gather in forward and backward"

    @classmethod
    def obstacle(cls, layer: mixing.Permute) -> str:
        """Modes that the library does not know either."""
        return "" if layer.mode in ("shuffle", "swap") else f"the mode {layer.mode!r} is not 'shuffle' or 'swap'"

    def forward(self, z: Tensor, context: object = None) -> tuple[Tensor, Tensor]:
        """Latent -> data, as in the library."""
        return self._moved(z, -(self.num_channels // 2), "perm", "inv_perm")

    def inverse(self, z: Tensor, context: object = None) -> tuple[Tensor, Tensor]:
        """Data -> latent, as in the library."""
        return self._moved(z, self.num_channels // 2, "inv_perm", "perm")

    def on_halves(self, halves: Pair, log_det: Tensor | None, to_data: bool) -> tuple[Pair, Tensor | None] | None:
        """Halves of equal size that are swapped cost nothing; ``None`` for others."""
        first, second = halves
        if self.mode != "swap" or first.shape != second.shape:
            return None
        return (second, first), log_det

    def _moved(self, z: Tensor, shift: int, order: str, inverse: str) -> tuple[Tensor, Tensor]:
        if self.mode == "swap":
            z = torch.roll(z, shift, 1)
        else:
            z = permuted(z, getattr(self, order), getattr(self, inverse))
        return z, torch.zeros(len(z), device=z.device)


class Squeeze(Accelerated, reshape.Squeeze):
    """The library's order of channels is that of ``pixel_shuffle``, which reads any strides."""

    REPLACEMENT = "pixel_shuffle"

    def forward(self, z: Tensor) -> tuple[Tensor, int]:
        """Latent -> data: channels become pixels."""
        return unsqueezed(z, 2), 0

    def inverse(self, z: Tensor) -> tuple[Tensor, int]:
        """Data -> latent: pixels become channels."""
        return squeezed(z, 2), 0


class Split(Accelerated, reshape.Split):
    """Checkerboards as strided slices, where the library builds index lists at every call."""

    REPLACEMENT = "strided slices"

    @classmethod
    def obstacle(cls, layer: reshape.Split) -> str:
        """Splits of channels are views already."""
        return "" if "checkerboard" in layer.mode else "channels are split by views and joined by one copy already"

    def forward(self, z: Tensor) -> tuple[list[Tensor], int]:
        """One tensor -> two."""
        return list(split_checkerboard(z, inverted="inv" in self.mode)), 0

    def inverse(self, z: list[Tensor]) -> tuple[Tensor, int]:
        """Two tensors -> one."""
        z1, z2 = z
        return merge_checkerboard(z1, z2, inverted="inv" in self.mode), 0


class Merge(Accelerated, reshape.Merge):
    """:class:`Split` the other way round."""

    REPLACEMENT = "strided slices"

    @classmethod
    def obstacle(cls, layer: reshape.Merge) -> str:
        """As in :class:`Split`."""
        return Split.obstacle(layer)

    def forward(self, z: list[Tensor]) -> tuple[Tensor, int]:
        """Two tensors -> one."""
        z1, z2 = z
        return merge_checkerboard(z1, z2, inverted="inv" in self.mode), 0

    def inverse(self, z: Tensor) -> tuple[list[Tensor], int]:
        """One tensor -> two."""
        return list(split_checkerboard(z, inverted="inv" in self.mode)), 0
