"""The layers of nflows that hybridkern computes, and why others stay."""

from __future__ import annotations

from nflows.distributions.base import Distribution
from nflows.transforms import Transform
from torch import nn

from hybridkern.integrations._layer import Accelerated
from hybridkern.integrations.nflows import autoregressive, bases, composite, couplings, linear, splines

_CLASSES: tuple[type[nn.Module], ...] = (
    composite.CompositeTransform,
    couplings.AffineCouplingTransform,
    couplings.AdditiveCouplingTransform,
    splines.PiecewiseRationalQuadraticCouplingTransform,
    splines.PiecewiseRationalQuadraticCDF,
    autoregressive.MaskedAffineAutoregressiveTransform,
    autoregressive.MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    linear.LULinear,
    bases.StandardNormal,
    bases.ConditionalDiagonalNormal,
    bases.DiagonalNormal,
)
LAYERS = {kind.library_class(): kind for kind in _CLASSES if issubclass(kind, Accelerated)}
ROOTS = (Transform, Distribution)

CONTAINERS = {
    "Flow",
    "SimpleRealNVP",
    "MaskedAutoregressiveFlow",
    "CompositeTransform",
    "MultiscaleCompositeTransform",
    "InverseTransform",
}
_ONE_PASS = "already one PyTorch operation per pass over the data"
NO_GAIN = {
    "ActNorm": _ONE_PASS,
    "BatchNorm": _ONE_PASS,
    "IdentityTransform": "it does nothing",
    "PointwiseAffineTransform": _ONE_PASS,
    "AffineTransform": _ONE_PASS,
    "Permutation": _ONE_PASS,
    "RandomPermutation": _ONE_PASS,
    "ReversePermutation": _ONE_PASS,
    "SqueezeTransform": _ONE_PASS,
    "OneByOneConvolution": "three products of small matrices",
    "NaiveLinear": _ONE_PASS,
}
