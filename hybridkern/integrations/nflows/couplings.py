"""Affine and additive couplings of nflows."""

from __future__ import annotations

from typing import Any, ClassVar

from nflows.transforms import coupling
from torch import Tensor

from hybridkern.integrations._layer import fits
from hybridkern.integrations._masked_coupling import MaskedCoupling
from hybridkern.ops import affine_coupling
from hybridkern.ops.affine_coupling.form import CouplingForm, resolve_form


class _Affine(MaskedCoupling):
    """``affine_coupling`` on the features that the mask names."""

    REPLACEMENT = "affine_coupling; features by slices or one gather"
    FORM: ClassVar[CouplingForm]

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """A scale map of the user's own, which later versions of the library take."""
        return "a custom scale map" if hasattr(layer, "scale_activation") else ""

    def coupled(self, x: Tensor, params: Any, inverse: bool) -> tuple[Tensor, Tensor] | None:
        """As :class:`MaskedCoupling` has it."""
        if not fits(x, params, 2 * x.shape[1] if self.FORM.has_scale else x.shape[1]):
            return None
        return affine_coupling(x, params, form=self.FORM, inverse=inverse)


class AffineCouplingTransform(_Affine, coupling.AffineCouplingTransform):
    """``x*s + t`` with ``s = sigma(a + 2) + 1e-3``."""

    FORM = resolve_form("nflows")


class AdditiveCouplingTransform(_Affine, coupling.AdditiveCouplingTransform):
    """``x + t``."""

    FORM = resolve_form("additive")
