"""Glow block of normflows: actnorm and 1x1 convolution folded into one matrix, then the coupling."""

from __future__ import annotations

from typing import NamedTuple

import torch
from normflows.flows import mixing, normalization
from normflows.flows.affine import glow
from torch import Tensor

from hybridkern.integrations._layer import WIDE, Accelerated, has_hooks
from hybridkern.integrations.normflows.couplings import AffineCoupling, AffineCouplingBlock, channel_order
from hybridkern.ops import paired_conv1x1


class Parts(NamedTuple):
    """The layers of a block that can be folded, and which half of the channels conditions the other."""

    coupling: AffineCoupling
    conv: mixing.Invertible1x1Conv
    norm: normalization.ActNorm
    order: tuple[int, int]


class GlowBlock(Accelerated, glow.GlowBlock):
    """Two passes over the image in place of its layers one by one.

    Before actnorm is initialized, for an odd number of channels, other splits than those of channels, and where hooks
    watch a layer inside, the layers run one by one.
    """

    REPLACEMENT = "actnorm and 1x1 convolution as one paired_conv1x1, then affine_coupling"

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent -> data, as in the library."""
        parts = self._parts(z)
        done = None if parts is None else self._to_data(z, parts)
        return super().forward(z) if done is None else done

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Data -> latent, as in the library."""
        parts = self._parts(z)
        done = None if parts is None else self._to_latent(z, parts)
        return super().inverse(z) if done is None else done

    def _parts(self, z: Tensor) -> Parts | None:
        if z.ndim != 4 or z.shape[1] % 2 or z.numel() == 0 or z.dtype not in WIDE or len(self.flows) != 3:
            return None
        block, conv, norm = self.flows
        if not isinstance(block, AffineCouplingBlock) or type(conv) is not mixing.Invertible1x1Conv:
            return None
        coupling = block.flows[1]
        if not isinstance(norm, normalization.ActNorm) or not isinstance(coupling, AffineCoupling):
            return None
        if has_hooks((*self.flows, *block.flows)) or norm.s.shape[1:] != (z.shape[1], 1, 1) or norm.s.dtype != z.dtype:
            return None
        order = channel_order(block.flows[0], block.flows[2])
        if order is None or not norm.data_dep_init_done:
            return None
        return Parts(coupling, conv, norm, order)

    def _to_latent(self, z: Tensor, parts: Parts) -> tuple[Tensor, Tensor] | None:
        with torch.autocast(z.device.type, enabled=False):
            scale, shift = torch.exp(-parts.norm.s.flatten()), parts.norm.t.flatten()
            weight = (parts.conv._assemble_W() if parts.conv.use_lu else parts.conv.W) * scale
            first, second = z.chunk(2, 1)
            halves = paired_conv1x1(first, second, weight, -torch.mv(weight, shift))
        kept, changed = halves[parts.order[0]], halves[parts.order[1]]
        done = parts.coupling.couple(kept, changed, to_data=False)
        if done is None:
            return None
        return torch.cat((kept, done[0]) if parts.order == (0, 1) else (done[0], kept), 1), done[1] + _log_det(parts, z)

    def _to_data(self, z: Tensor, parts: Parts) -> tuple[Tensor, Tensor] | None:
        halves = z.chunk(2, 1)
        kept, changed = halves[parts.order[0]], halves[parts.order[1]]
        done = parts.coupling.couple(kept, changed, to_data=True)
        if done is None:
            return None
        pair = (kept, done[0]) if parts.order == (0, 1) else (done[0], kept)
        with torch.autocast(z.device.type, enabled=False):
            weight = _inverse(parts.conv) * torch.exp(parts.norm.s).view(-1, 1)
            return torch.cat(paired_conv1x1(*pair, weight, parts.norm.t.flatten()), 1), done[1] - _log_det(parts, z)


def _inverse(conv: mixing.Invertible1x1Conv) -> Tensor:
    if conv.use_lu:
        return conv._assemble_W(inverse=True)
    return torch.inverse(conv.W.double()).type(conv.W.dtype)


def _log_det(parts: Parts, z: Tensor) -> Tensor:
    """Of actnorm and convolution, data -> latent, a scalar."""
    conv = parts.conv.log_S.sum() if parts.conv.use_lu else torch.slogdet(parts.conv.W)[1]
    return (conv - parts.norm.s.sum()) * (z.shape[2] * z.shape[3])
