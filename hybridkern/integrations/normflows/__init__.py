"""The layers of normflows that hybridkern computes, and why others stay."""

from __future__ import annotations

from torch import nn

from hybridkern.integrations._layer import Accelerated
from hybridkern.integrations.normflows import bases, couplings, glow, models, others

_CLASSES: tuple[type[nn.Module], ...] = (
    models.NormalizingFlow,
    models.ClassCondFlow,
    models.MultiscaleFlow,
    couplings.AffineCoupling,
    couplings.AffineCouplingBlock,
    couplings.MaskedAffineFlow,
    glow.GlowBlock,
    others.ActNorm,
    others.Permute,
    others.Squeeze,
    others.Split,
    others.Merge,
    bases.DiagGaussian,
    bases.ClassCondDiagGaussian,
    bases.GlowBase,
)
LAYERS = {kind.library_class(): kind for kind in _CLASSES if issubclass(kind, Accelerated)}

_RUNS_PARTS = "runs its parts, which are decided one by one"
_NETWORK = "a network"
LEFT = {
    "ConditionalNormalizingFlow": _RUNS_PARTS,
    "NormalizingFlowVAE": _RUNS_PARTS,
    "Composite": _RUNS_PARTS,
    "Reverse": _RUNS_PARTS,
    "MLP": _NETWORK,
    "ConvNet2d": _NETWORK,
    "ResidualNet": _NETWORK,
    "MADE": _NETWORK,
    "Invertible1x1Conv": "one convolution already; inside a GlowBlock it is folded with actnorm",
    "AffineConstFlow": "has no operator",
    "BatchNorm": "statistics of the batch have no operator",
}
