"""Affine couplings of normflows.

In that library ``forward`` is latent -> data and ``inverse`` data -> latent; the direction of the operators is the
latter, so its ``forward`` is their ``inverse=True``.
"""

from __future__ import annotations

from typing import Any

import torch
from normflows.flows.affine import coupling
from torch import Tensor

from hybridkern.integrations._layer import WIDE, Accelerated, fits, has_hooks
from hybridkern.integrations._network import run_network
from hybridkern.integrations.normflows._halves import Pair, on_tensor
from hybridkern.ops import affine_coupling
from hybridkern.ops.affine_coupling.form import CouplingForm, resolve_form

FORMS = {
    "exp": resolve_form("normflows_exp"),
    "sigmoid": resolve_form("normflows"),
    "sigmoid_inv": resolve_form("normflows_sigmoid_inv"),
}
SHIFT = CouplingForm(scale="none", shift="subtract")
# MaskedAffineFlow gives scale and shift as two networks; it, too, goes from latents to data.
MASKED = CouplingForm(scale="exp", negate=True, shift="subtract")
Halves = list[Tensor]
Coupled = tuple[Tensor, Tensor]


class AffineCoupling(Accelerated, coupling.AffineCoupling):
    """``affine_coupling`` on the second of two given tensors."""

    REPLACEMENT = "affine_coupling"
    NETWORKS = ("param_map",)

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """Scale maps that the library does not know either."""
        known = not layer.scale or layer.scale_map in FORMS
        return "" if known else f"the scale map {layer.scale_map!r} is not one of {', '.join(FORMS)}"

    def couple(self, z1: Tensor, z2: Tensor, to_data: bool, log_det: Tensor | None = None) -> Coupled | None:
        """``z2`` transformed, and ``log_det`` with its own added; ``None`` where the operator does not fit."""
        if z2.dtype not in WIDE:
            return None
        params = run_network(self.param_map, z1, options=self._hybridkern)
        if not fits(z2, params, 2 * z2.shape[1] if self.scale else z2.shape[1]):
            return None
        form = FORMS[self.scale_map] if self.scale else SHIFT
        return affine_coupling(z2, params, log_det, form=form, inverse=to_data)

    def forward(self, z: Halves) -> tuple[Halves, Tensor]:
        """Latent -> data, as in the library."""
        z1, z2 = z
        done = self.couple(z1, z2, to_data=True)
        return super().forward(z) if done is None else ([z1, done[0]], done[1])

    def inverse(self, z: Halves) -> tuple[Halves, Tensor]:
        """Data -> latent, as in the library."""
        z1, z2 = z
        done = self.couple(z1, z2, to_data=False)
        return super().inverse(z) if done is None else ([z1, done[0]], done[1])


class AffineCouplingBlock(Accelerated, coupling.AffineCouplingBlock):
    """Split, coupling and merge without the steps between, for channels; other splits run part by part."""

    REPLACEMENT = "affine_coupling on a slice of the channels"

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent -> data, as in the library."""
        done = on_tensor(self, z, to_data=True)
        return super().forward(z) if done is None else done

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Data -> latent, as in the library."""
        done = on_tensor(self, z, to_data=False)
        return super().inverse(z) if done is None else done

    def on_halves(self, halves: Pair, log_det: Tensor | None, to_data: bool) -> tuple[Pair, Tensor] | None:
        """The halves of the channels transformed, and ``log_det`` with its own added; ``None`` where it cannot."""
        split, inner, merge = self.flows
        order = channel_order(split, merge)
        if order is None or not isinstance(inner, AffineCoupling) or has_hooks(self.flows):
            return None
        return couple_halves(inner, halves, order, log_det, to_data)


def couple_halves(
    inner: AffineCoupling, halves: Pair, order: tuple[int, int], log_det: Tensor | None, to_data: bool
) -> tuple[Pair, Tensor] | None:
    """One half transformed given the other; ``order`` as :func:`channel_order` gives it."""
    kept = halves[order[0]]
    done = inner.couple(kept, halves[order[1]], to_data, log_det)
    if done is None:
        return None
    return ((kept, done[0]) if order == (0, 1) else (done[0], kept)), done[1]


def channel_order(split: Any, merge: Any) -> tuple[int, int] | None:
    """Which half of the channels conditions and which is transformed; ``None`` where channels are not halved."""
    if split.mode != merge.mode:
        return None
    return {"channel": (0, 1), "channel_inv": (1, 0)}.get(split.mode)


class MaskedAffineFlow(Accelerated, coupling.MaskedAffineFlow):
    """``affine_coupling`` on all features, with scale and shift zero where the mask is one."""

    REPLACEMENT = "affine_coupling"
    NETWORKS = ("s", "t")

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """A layer that is the identity."""
        if not isinstance(layer.s, torch.nn.Module) and not isinstance(layer.t, torch.nn.Module):
            return "neither scale nor shift"
        return ""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent -> data, as in the library."""
        done = self._couple(z, to_data=True)
        return super().forward(z) if done is None else done

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Data -> latent, as in the library."""
        done = self._couple(z, to_data=False)
        return super().inverse(z) if done is None else done

    def _couple(self, z: Tensor, to_data: bool) -> tuple[Tensor, Tensor] | None:
        if z.dtype not in WIDE or z.ndim != self.b.ndim or z.ndim < 2:
            return None
        masked = self.b * z
        nets = [net if isinstance(net, torch.nn.Module) else None for net in (self.s, self.t)]
        scale, shift = (None if net is None else run_network(net, masked, options=self._hybridkern) for net in nets)
        free = 1 - self.b
        if scale is None:
            assert shift is not None
            params, form = _masked(shift, free), SHIFT
        else:
            shift = torch.zeros_like(scale) if shift is None else shift
            if scale.shape != z.shape or shift.shape != z.shape:
                return None
            params, form = _masked(torch.cat([scale, shift], 1), torch.cat([free, free], 1)), MASKED
        if not fits(z, params, 2 * z.shape[1] if form.has_scale else z.shape[1]):
            return None
        return affine_coupling(z, params, form=form, inverse=to_data)


def _masked(params: Tensor, free: Tensor) -> Tensor:
    """``params * free``, with NaN in place of what is not finite: the library maps infinities to NaN."""
    return torch.addcmul(params.detach() * 0, params, free)
