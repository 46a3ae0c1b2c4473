"""Couplings of nflows: ``forward`` is data -> latent; a mask says which features are transformed."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from nflows.transforms import coupling
from torch import Tensor

from hybridkern.integrations._layer import WIDE, Accelerated, fits
from hybridkern.integrations._network import run_network
from hybridkern.integrations.nflows._features import Arrangement, Lying, arrange, joined, parts, whole
from hybridkern.ops import affine_coupling
from hybridkern.ops.affine_coupling.form import CouplingForm, resolve_form

_ARRANGEMENT = "_hybridkern_arrangement"


class _MaskedCoupling(Accelerated):
    """``affine_coupling`` on the features that the mask names."""

    REPLACEMENT = "affine_coupling; features by slices or one gather"
    NETWORKS = ("transform_net",)
    CACHES = (_ARRANGEMENT,)
    FORM: ClassVar[CouplingForm]
    features: int
    identity_features: Tensor
    transform_features: Tensor
    transform_net: Any
    unconditional_transform: Any

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """A scale map of the user's own, which later versions of the library take."""
        return "a scale map of its own" if hasattr(layer, "scale_activation") else ""

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data -> latent, as in the library."""
        done = self.on_parts(inputs, context, None, inverse=False)
        return super().forward(inputs, context) if done is None else (whole(done[0]), done[1])  # type: ignore[misc]

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent -> data, as in the library."""
        done = self.on_parts(inputs, context, None, inverse=True)
        return super().inverse(inputs, context) if done is None else (whole(done[0]), done[1])  # type: ignore[misc]

    def on_parts(
        self, x: Tensor | Lying, context: Tensor | None, log_det: Tensor | None, inverse: bool
    ) -> tuple[Tensor | Lying, Tensor] | None:
        """The features transformed, and ``log_det`` with its own added; ``None`` where the operator does not fit."""
        if not isinstance(x, Lying) and (x.dim() not in (2, 4) or x.shape[1] != self.features or x.numel() == 0):
            return None  # the library says what is wrong
        arrangement = self._arrangement()
        kept, changed = parts(x, arrangement)
        if changed.dtype not in WIDE or kept.shape[1] + changed.shape[1] != self.features:
            return None
        conditions = kept
        if self.unconditional_transform is not None:
            other = self.unconditional_transform
            kept, more = other.inverse(kept, context) if inverse else other(kept, context)
            conditions = kept if inverse else conditions
            log_det = more if log_det is None else log_det + more
        params = run_network(self.transform_net, conditions, context, options=self._hybridkern)
        if not fits(changed, params, 2 * changed.shape[1] if self.FORM.has_scale else changed.shape[1]):
            return None
        changed, log_det = affine_coupling(changed, params, log_det, form=self.FORM, inverse=inverse)
        return joined(kept, changed, arrangement), log_det

    def _arrangement(self) -> Arrangement:
        kept, changed = self.identity_features, self.transform_features
        if torch.compiler.is_compiling():
            return arrange(kept, changed)
        found: Arrangement | None = self.__dict__.get(_ARRANGEMENT)
        if found is None or not found.holds(kept, changed):
            found = self.__dict__[_ARRANGEMENT] = arrange(kept, changed)
        return found


class AffineCouplingTransform(_MaskedCoupling, coupling.AffineCouplingTransform):
    """``x*s + t`` with ``s = sigma(a + 2) + 1e-3``."""

    FORM = resolve_form("nflows")


class AdditiveCouplingTransform(_MaskedCoupling, coupling.AdditiveCouplingTransform):
    """``x + t``."""

    FORM = resolve_form("additive")
