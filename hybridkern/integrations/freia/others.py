"""Layers of FrEIA that move numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from FrEIA.modules import fixed_transforms, reshapes
from torch import Tensor

from hybridkern.integrations._channels import SMALL, permuted, squeezed, unsqueezed
from hybridkern.integrations._layer import Accelerated

Tensors = Sequence[Tensor]


class PermuteRandom(Accelerated, fixed_transforms.PermuteRandom):
    """One pass in each direction of autograd; a few numbers are permuted by the library."""

    REPLACEMENT = "gather in forward and backward"

    def forward(self, x: Tensors, rev: bool = False, jac: bool = True) -> tuple[list[Tensor], float]:
        """Data -> latent, or back with ``rev``, as in the library."""
        if x[0].numel() < SMALL or x[0].ndim < 2 or x[0].shape[1] != self.in_channels:
            return super().forward(x, rev, jac)
        order, inverse = (self.perm_inv, self.perm) if rev else (self.perm, self.perm_inv)
        return [permuted(x[0], order, inverse)], 0.0


class _Squeeze(Accelerated):
    REPLACEMENT = "pixel_unshuffle, where the library convolves with a fixed kernel"

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """Another order of channels."""
        return "its legacy order of channels" if layer.legacy_backend else ""


class IRevNetDownsampling(_Squeeze, reshapes.IRevNetDownsampling):
    """Pixels become channels."""

    def forward(self, x: Tensors, c: object = None, jac: bool = True, rev: bool = False) -> tuple[tuple[Tensor], float]:
        """As in the library."""
        if x[0].numel() == 0:  # PyTorch does not reshape an empty image, and its backward pass raises
            found: tuple[tuple[Tensor], float] = super().forward(x, c, jac, rev)
            return found
        return (unsqueezed(x[0], 2) if rev else squeezed(x[0], 2),), 0.0


class IRevNetUpsampling(_Squeeze, reshapes.IRevNetUpsampling):
    """Channels become pixels."""

    def forward(self, x: Tensors, c: object = None, jac: bool = True, rev: bool = False) -> tuple[tuple[Tensor], float]:
        """As in the library."""
        if x[0].numel() == 0:  # PyTorch does not reshape an empty image, and its backward pass raises
            found: tuple[tuple[Tensor], float] = super().forward(x, c, jac, rev)
            return found
        return (squeezed(x[0], 2) if rev else unsqueezed(x[0], 2),), 0.0
