"""Rational-quadratic splines of nflows: couplings, and one for all of the batch."""

from __future__ import annotations

from typing import Any, ClassVar

from nflows.transforms import coupling, nonlinearities, splines

from hybridkern.integrations._layer import Accelerated
from hybridkern.integrations._masked_coupling import SplineCoupling
from hybridkern.integrations._shared_spline import SharedSpline

TAILS = ("linear",)


class Spline(Accelerated):
    """One whose tails the operator has, by functions of the library that nobody has put others in the place of."""

    TAILS: ClassVar[tuple[str, ...]] = TAILS

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """What the operator does not take."""
        names = ("rational_quadratic_spline", "unconstrained_rational_quadratic_spline")
        own = [name for name in names if getattr(splines, name).__module__ != splines.rational_quadratic.__name__]
        return f"a custom function: {', '.join(own)}" if own else super().obstacle(layer)


class PiecewiseRationalQuadraticCouplingTransform(
    Spline, SplineCoupling, coupling.PiecewiseRationalQuadraticCouplingTransform
):
    """The parameters of each example from a network."""


class PiecewiseRationalQuadraticCDF(Spline, SharedSpline, nonlinearities.PiecewiseRationalQuadraticCDF):
    """Its own parameters."""
