"""Glow block of normflows: actnorm and 1x1 convolution folded into one matrix, then the coupling."""

from __future__ import annotations

from typing import NamedTuple

import torch
from normflows.flows import mixing
from normflows.flows.affine import glow
from normflows.flows.normalization import ActNorm
from torch import Tensor, nn

from hybridkern.integrations._layer import WIDE, has_hooks
from hybridkern.integrations.normflows._halves import OnHalves, Pair
from hybridkern.integrations.normflows.couplings import (
    AffineCoupling,
    AffineCouplingBlock,
    couple_halves,
    inner_coupling,
)
from hybridkern.ops import paired_conv1x1


class Parts(NamedTuple):
    """The layers of a block that can be folded, and which half of the channels conditions the other."""

    coupling: AffineCoupling
    conv: mixing.Invertible1x1Conv
    norm: ActNorm
    order: tuple[int, int]


class GlowBlock(OnHalves, glow.GlowBlock):
    """Two passes over the image in place of its layers one by one.

    Before actnorm is initialized, for an odd number of channels, other splits than those of channels, and where hooks
    watch a layer inside, the layers run one by one.
    """

    REPLACEMENT = "actnorm and 1x1 convolution as one paired_conv1x1, then affine_coupling"

    @classmethod
    def folds(cls, layer: glow.GlowBlock) -> tuple[nn.Module, ...]:
        """Convolution and actnorm, for halves of one size."""
        if len(layer.flows) != 3:
            return ()
        _, conv, norm = layer.flows
        split = layer.flows[0].flows[0]
        plain = (type(conv), type(norm)) == (mixing.Invertible1x1Conv, ActNorm) and "checkerboard" not in split.mode
        return (conv, norm) if plain and conv.num_channels % 2 == 0 else ()

    def on_halves(self, halves: Pair, to_data: bool) -> tuple[Pair, Tensor] | None:
        """See :class:`OnHalves`."""
        parts = self._parts(halves)
        if parts is None:
            return None
        if to_data:
            halves, log_det = couple_halves(parts.coupling, parts.order, halves, to_data)
            return _mixed(parts, halves, log_det, to_data)
        halves, log_det = _mixed(parts, halves, None, to_data)
        halves, own = couple_halves(parts.coupling, parts.order, halves, to_data)
        return halves, log_det + own

    def _parts(self, halves: Pair) -> Parts | None:
        first, second = halves
        if first.ndim != 4 or first.shape != second.shape or first.numel() == 0 or first.dtype not in WIDE:
            return None
        if len(self.flows) != 3:
            return None
        block, conv, norm = self.flows
        if (type(block), type(conv), type(norm)) != (AffineCouplingBlock, mixing.Invertible1x1Conv, ActNorm):
            return None
        found = inner_coupling(block)
        if found is None or has_hooks((*self.flows, *block.flows)):
            return None
        channels, weight = 2 * first.shape[1], conv.L if conv.use_lu else conv.W
        if norm.s.shape != (1, channels, 1, 1) or weight.shape != (channels, channels):
            return None
        if norm.s.dtype is not first.dtype or weight.dtype is not first.dtype or not norm.data_dep_init_done:
            return None
        if torch.is_grad_enabled() and (norm.s.is_inference() or norm.t.is_inference()):
            return None  # set in inference mode: autograd takes such tensors as long as nothing has to keep them
        return Parts(found[0], conv, norm, found[1])


def _mixed(parts: Parts, halves: Pair, log_det: Tensor | None, to_data: bool) -> tuple[Pair, Tensor]:
    """Actnorm and convolution as one product, in the flow's own precision."""
    with torch.autocast(halves[0].device.type, enabled=False):
        scale, shift = parts.norm.s.flatten(), parts.norm.t.flatten()
        if to_data:
            weight, bias = _inverse(parts.conv) * torch.exp(scale)[:, None], shift
        else:
            weight = (parts.conv._assemble_W() if parts.conv.use_lu else parts.conv.W) * torch.exp(-scale)
            bias = -torch.mv(weight, shift)
        own = _log_det(parts) * (halves[0].shape[2] * halves[0].shape[3])
        own = -own if to_data else own
        log_det = own.expand(len(halves[0])) if log_det is None else log_det + own
        return paired_conv1x1(*halves, weight, bias), log_det


def _inverse(conv: mixing.Invertible1x1Conv) -> Tensor:
    if conv.use_lu:
        return conv._assemble_W(inverse=True)
    return torch.inverse(conv.W.double()).type(conv.W.dtype)


def _log_det(parts: Parts) -> Tensor:
    """Of actnorm and convolution at one pixel, data -> latent, a scalar."""
    conv = parts.conv.log_S.sum() if parts.conv.use_lu else torch.slogdet(parts.conv.W)[1]
    return conv - parts.norm.s.sum()
