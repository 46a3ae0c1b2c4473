"""Rational-quadratic splines of nflows: couplings, and one for all of the batch."""

from __future__ import annotations

from typing import Any

from nflows.transforms import coupling, nonlinearities, splines

from hybridkern.integrations._masked_coupling import SplineCoupling
from hybridkern.integrations._shared_spline import SharedSpline

TAILS = ("linear",)


def replaced_functions() -> str:
    """The library's functions in whose place someone put another."""
    names = ("rational_quadratic_spline", "unconstrained_rational_quadratic_spline")
    own = [name for name in names if getattr(splines, name).__module__ != splines.rational_quadratic.__name__]
    return f"a function of its own: {', '.join(own)}" if own else ""


class PiecewiseRationalQuadraticCouplingTransform(SplineCoupling, coupling.PiecewiseRationalQuadraticCouplingTransform):
    """The parameters of each example from a network."""

    TAILS = TAILS

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """What the operator does not take."""
        return replaced_functions() or super().obstacle(layer)


class PiecewiseRationalQuadraticCDF(SharedSpline, nonlinearities.PiecewiseRationalQuadraticCDF):
    """Its own parameters."""

    TAILS = TAILS

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """What the operator does not take."""
        return replaced_functions() or super().obstacle(layer)
