"""Layers of FrEIA that move numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

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
    SQUEEZES: ClassVar[bool]  # or the other way about

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """Another order of channels."""
        return "its legacy order of channels" if layer.legacy_backend else ""

    def forward(self, x: Tensors, c: object = None, jac: bool = True, rev: bool = False) -> tuple[tuple[Tensor], float]:
        """As in the library."""
        if x[0].numel() == 0:  # PyTorch does not reshape an empty image, and its backward pass raises
            found: tuple[tuple[Tensor], float] = super().forward(x, c, jac, rev)  # type: ignore[misc]
            return found
        return ((squeezed if bool(rev) != self.SQUEEZES else unsqueezed)(x[0], 2),), 0.0


class IRevNetDownsampling(_Squeeze, reshapes.IRevNetDownsampling):
    """Pixels become channels."""

    SQUEEZES = True


class IRevNetUpsampling(_Squeeze, reshapes.IRevNetUpsampling):
    """Channels become pixels."""

    SQUEEZES = False
