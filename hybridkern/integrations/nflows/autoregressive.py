"""Masked autoregressive layers of nflows."""

from __future__ import annotations

from typing import Any

from nflows.transforms import autoregressive
from nflows.transforms.splines import rational_quadratic
from torch import Tensor

from hybridkern.integrations._autoregressive import AffineAutoregressive, SplineAutoregressive
from hybridkern.integrations._durkan import Done
from hybridkern.integrations.nflows.splines import TAILS
from hybridkern.ops.affine_coupling.form import resolve_form

_EPS = 1e-3  # what the library adds to the scale


class MaskedAffineAutoregressiveTransform(AffineAutoregressive, autoregressive.MaskedAffineAutoregressiveTransform):
    """``x*s + t`` with ``s = log(1 + exp(a)) + 1e-3``."""

    FORM = resolve_form("nflows_maf")
    _epsilon: float

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """A number that the library does not let anyone choose."""
        return "" if layer._epsilon == _EPS else f"{layer._epsilon} added to its scales, where the library adds {_EPS}"

    def mapped(self, x: Tensor, params: Any, inverse: bool) -> Done | None:
        """As the class above has it."""
        return super().mapped(x, params, inverse) if self._epsilon == _EPS else None


class MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
    SplineAutoregressive, autoregressive.MaskedPiecewiseRationalQuadraticAutoregressiveTransform
):
    """Splines."""

    TAILS = TAILS

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """What the operator does not take."""
        for name in ("rational_quadratic_spline", "unconstrained_rational_quadratic_spline"):
            if getattr(autoregressive, name).__module__ != rational_quadratic.__name__:
                return f"a custom function: {name}"
        return super().obstacle(layer)
