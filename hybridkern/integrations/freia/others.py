"""Layers of FrEIA that move numbers or scale channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from FrEIA.modules import fixed_transforms, invertible_resnet, reshapes
from torch import Tensor

from hybridkern.integrations._channels import affine_channels, permuted, squeezed, unsqueezed
from hybridkern.integrations._layer import Accelerated

Tensors = Sequence[Tensor]


class ActNorm(Accelerated, invertible_resnet.ActNorm):
    """Scale and shift in one pass; initialization from data is the library's."""

    REPLACEMENT = "scale and shift in one pass"

    def forward(self, x: Tensors, rev: bool = False, jac: bool = True) -> tuple[list[Tensor], Tensor]:
        """Data -> latent, or back with ``rev``, as in the library."""
        if self.init_on_next_batch:
            return super().forward(x, rev, jac)
        total = (self.scale.sum() * math.prod(self.dims_in[1:])).repeat(len(x[0]))
        if not rev:
            return [affine_channels(x[0], self.scale.exp(), self.bias)], total
        scale = (-self.scale).exp()
        return [affine_channels(x[0], scale, -self.bias * scale)], -total


class PermuteRandom(Accelerated, fixed_transforms.PermuteRandom):
    """One pass in each direction of autograd."""

    REPLACEMENT = "gather in forward and backward"

    def forward(self, x: Tensors, rev: bool = False, jac: bool = True) -> tuple[list[Tensor], float]:
        """Data -> latent, or back with ``rev``, as in the library."""
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
        return (unsqueezed(x[0], 2) if rev else squeezed(x[0], 2),), 0.0


class IRevNetUpsampling(_Squeeze, reshapes.IRevNetUpsampling):
    """Channels become pixels."""

    def forward(self, x: Tensors, c: object = None, jac: bool = True, rev: bool = False) -> tuple[tuple[Tensor], float]:
        """As in the library."""
        return (squeezed(x[0], 2) if rev else unsqueezed(x[0], 2),), 0.0
