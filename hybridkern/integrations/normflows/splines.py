"""Rational-quadratic splines of normflows: the layers inside its wrappers. ``forward`` of these is data -> latent."""

from __future__ import annotations

from typing import Any, ClassVar

from normflows.flows.neural_spline import coupling
from normflows.utils import splines

from hybridkern.integrations._layer import Accelerated
from hybridkern.integrations._masked_coupling import SplineCoupling
from hybridkern.integrations._shared_spline import SharedSpline


class Spline(Accelerated):
    """One whose tails the operator has, by functions of the library that nobody has put others in the place of."""

    TAILS: ClassVar[tuple[str, ...]] = ("linear", "circular")

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """What the operator does not take."""
        names = ("rational_quadratic_spline", "unconstrained_rational_quadratic_spline")
        own = [name for name in names if getattr(splines, name).__module__ != splines.__name__]
        return f"a custom function: {', '.join(own)}" if own else super().obstacle(layer)


class PiecewiseRationalQuadraticCoupling(Spline, SplineCoupling, coupling.PiecewiseRationalQuadraticCoupling):
    """The parameters of each example from a network."""


class PiecewiseRationalQuadraticCDF(Spline, SharedSpline, coupling.PiecewiseRationalQuadraticCDF):
    """Its own parameters."""
