"""The layers of normflows that hybridkern computes, and why others stay."""

from __future__ import annotations

from normflows.distributions.base import BaseDistribution
from normflows.flows import Flow
from torch import nn

from hybridkern.integrations._layer import Accelerated
from hybridkern.integrations.normflows import (
    autoregressive,
    bases,
    couplings,
    glow,
    linear,
    masked,
    models,
    others,
    splines,
)

_CLASSES: tuple[type[nn.Module], ...] = (
    models.NormalizingFlow,
    models.ClassCondFlow,
    models.MultiscaleFlow,
    couplings.AffineCoupling,
    couplings.AffineCouplingBlock,
    masked.MaskedAffineFlow,
    splines.PiecewiseRationalQuadraticCoupling,
    splines.PiecewiseRationalQuadraticCDF,
    autoregressive.MaskedAffineAutoregressive,
    autoregressive.MaskedPiecewiseRationalQuadraticAutoregressive,
    glow.GlowBlock,
    linear.LULinear,
    linear.LULinearPermute,
    others.Permute,
    others.Split,
    others.Merge,
    bases.DiagGaussian,
    bases.ClassCondDiagGaussian,
    bases.GlowBase,
)
LAYERS = {kind.library_class(): kind for kind in _CLASSES if issubclass(kind, Accelerated)}
ROOTS = (Flow, BaseDistribution)

CONTAINERS = {
    "NormalizingFlow",
    "ConditionalNormalizingFlow",
    "ClassCondFlow",
    "MultiscaleFlow",
    "NormalizingFlowVAE",
    "AffineCouplingBlock",
    "GlowBlock",
    "Composite",
    "Reverse",
    "CoupledRationalQuadraticSpline",
    "CircularCoupledRationalQuadraticSpline",
    "AutoregressiveRationalQuadraticSpline",
    "CircularAutoregressiveRationalQuadraticSpline",
    "LULinearPermute",
}
_ONE_PASS = "already one PyTorch operation per pass over the data"
NO_GAIN = {
    "ActNorm": _ONE_PASS + "; inside a GlowBlock it is folded into the convolution",
    "Invertible1x1Conv": _ONE_PASS + "; inside a GlowBlock actnorm is folded into it",
    "InvertibleAffine": _ONE_PASS,
    "AffineConstFlow": _ONE_PASS,
    "CCAffineConst": _ONE_PASS,
    "BatchNorm": _ONE_PASS,
    "Squeeze": _ONE_PASS,
    "PeriodicWrap": _ONE_PASS,
    "PeriodicShift": _ONE_PASS,
    "Shift": _ONE_PASS,
}
