"""Affine couplings of normflows.

In that library ``forward`` is latent -> data and ``inverse`` data -> latent; the direction of the operators is the
latter, so its ``forward`` is their ``inverse=True``.
"""

from __future__ import annotations

from typing import Any

from normflows.flows import reshape
from normflows.flows.affine import coupling
from torch import Tensor

from hybridkern.integrations._layer import WIDE, Accelerated, Given, fits, has_hooks, unsaved
from hybridkern.integrations._network import run_network
from hybridkern.integrations._reads import readable
from hybridkern.integrations.normflows import others
from hybridkern.integrations.normflows._halves import OnHalves, Pair
from hybridkern.ops import affine_coupling
from hybridkern.ops.affine_coupling.form import CouplingForm, resolve_form

FORMS = {
    "exp": resolve_form("normflows_exp"),
    "sigmoid": resolve_form("normflows"),
    "sigmoid_inv": resolve_form("normflows_sigmoid_inv"),
}
SHIFT = CouplingForm(scale="none", shift="subtract")
Halves = list[Tensor]


class AffineCoupling(Accelerated, coupling.AffineCoupling):
    """``affine_coupling`` on the second of two given tensors."""

    REPLACEMENT = "affine_coupling"
    NETWORKS = ("param_map",)
    COUPLES = True

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """Scale maps that the library does not know either."""
        known = not layer.scale or layer.scale_map in FORMS
        return "" if known else f"the scale map {layer.scale_map!r} is not one of {', '.join(FORMS)}"

    def couple(self, z1: Tensor, z2: Tensor, to_data: bool) -> tuple[Tensor, Tensor]:
        """``z2`` transformed given ``z1``, and the log-determinant; by the library where the operator does not fit."""
        if z2.dtype not in WIDE:
            (_, z2), log_det = self._library(self, z1, z2, to_data)
            return z2, log_det
        params = run_network(self.param_map, z1, options=self._hybridkern)
        form = self.form()
        if form is None or not fits(z2, params, 2 * z2.shape[1] if self.scale else z2.shape[1]):
            (_, z2), log_det = self._library(Given(self, param_map=params), z1, z2, to_data)
            return z2, log_det
        return affine_coupling(z2, params, form=form, inverse=to_data)

    def form(self) -> CouplingForm | None:
        """The operator's name for the map; ``None`` where it has none."""
        return FORMS.get(self.scale_map) if self.scale else SHIFT

    @staticmethod
    def _library(layer: Any, z1: Tensor, z2: Tensor, to_data: bool) -> tuple[Halves, Tensor]:
        run = coupling.AffineCoupling.forward if to_data else coupling.AffineCoupling.inverse
        return run(layer, [z1, z2])

    def forward(self, z: Halves) -> tuple[Halves, Tensor]:
        """Latent -> data, as in the library."""
        return self._pair(z, to_data=True)

    def inverse(self, z: Halves) -> tuple[Halves, Tensor]:
        """Data -> latent, as in the library."""
        return self._pair(z, to_data=False)

    def _pair(self, z: Halves, to_data: bool) -> tuple[Halves, Tensor]:
        z1, z2 = z
        z2, log_det = self.couple(z1, z2, to_data)
        return [z1, unsaved(z2, self.form() or SHIFT, to_data)], log_det


class AffineCouplingBlock(OnHalves, coupling.AffineCouplingBlock):
    """Split, coupling and merge without the steps between, for channels; other splits run part by part."""

    REPLACEMENT = "affine_coupling on a slice of the channels"

    def on_halves(self, halves: Pair, to_data: bool) -> tuple[Pair, Tensor] | None:
        """See :class:`OnHalves`."""
        found = inner_coupling(self)
        if found is None or has_hooks(self.flows):
            return None
        return couple_halves(*found, halves, to_data)


def couple_halves(inner: AffineCoupling, order: tuple[int, int], halves: Pair, to_data: bool) -> tuple[Pair, Tensor]:
    """One half transformed given the other, and the log-determinant ``(B,)`` in the dtype of the halves."""
    kept = readable(inner.param_map, halves[order[0]])
    changed, own = inner.couple(kept, halves[order[1]], to_data)
    if own.dtype is not kept.dtype or own.ndim != 1 or len(own) != len(kept):
        log_det = kept.new_zeros(len(kept))
        log_det += own  # as the block of the library does
        own = log_det
    return ((kept, changed) if order == (0, 1) else (changed, kept)), own


def inner_coupling(block: Any) -> tuple[AffineCoupling, tuple[int, int]] | None:
    """The coupling of a block, and which half conditions and which is transformed; ``None`` for other blocks."""
    if len(block.flows) != 3:
        return None
    split, inner, merge = block.flows
    known = type(split) in (reshape.Split, others.Split) and type(merge) in (reshape.Merge, others.Merge)
    if type(inner) is not AffineCoupling or not known or split.mode != merge.mode:
        return None
    order = {"channel": (0, 1), "channel_inv": (1, 0)}.get(split.mode)
    return None if order is None else (inner, order)
