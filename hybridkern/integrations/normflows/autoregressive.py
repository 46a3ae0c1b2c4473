"""Masked autoregressive layers of normflows."""

from __future__ import annotations

from typing import Any

from normflows.flows.affine import autoregressive as affine
from normflows.flows.neural_spline import autoregressive as spline

from hybridkern.integrations._autoregressive import AffineAutoregressive, SplineAutoregressive
from hybridkern.integrations.normflows.splines import TAILS, replaced_functions
from hybridkern.ops.affine_coupling.form import resolve_form


class MaskedAffineAutoregressive(AffineAutoregressive, affine.MaskedAffineAutoregressive):
    """``x*s + t`` with ``s = sigma(a + 2) + 1e-3``."""

    FORM = resolve_form("normflows_maf")


class MaskedPiecewiseRationalQuadraticAutoregressive(
    SplineAutoregressive, spline.MaskedPiecewiseRationalQuadraticAutoregressive
):
    """Splines."""

    TAILS = TAILS

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """What the operator does not take."""
        return replaced_functions() or super().obstacle(layer)
