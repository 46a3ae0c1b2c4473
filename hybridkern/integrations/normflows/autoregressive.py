"""Masked autoregressive layers of normflows."""

from __future__ import annotations

from normflows.flows.affine import autoregressive as affine
from normflows.flows.neural_spline import autoregressive as spline

from hybridkern.integrations._autoregressive import AffineAutoregressive, SplineAutoregressive
from hybridkern.integrations.normflows.splines import Spline
from hybridkern.ops.affine_coupling.form import resolve_form


class MaskedAffineAutoregressive(AffineAutoregressive, affine.MaskedAffineAutoregressive):
    """``x*s + t`` with ``s = sigma(a + 2) + 1e-3``."""

    FORM = resolve_form("normflows_maf")


class MaskedPiecewiseRationalQuadraticAutoregressive(
    Spline, SplineAutoregressive, spline.MaskedPiecewiseRationalQuadraticAutoregressive
):
    """Splines."""
