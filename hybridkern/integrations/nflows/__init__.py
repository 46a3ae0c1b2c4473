"""The layers of nflows that hybridkern computes, and why others stay."""

from __future__ import annotations

from torch import nn

from hybridkern.integrations._layer import Accelerated
from hybridkern.integrations.nflows import composite, couplings, others

_CLASSES: tuple[type[nn.Module], ...] = (
    composite.CompositeTransform,
    couplings.AffineCouplingTransform,
    couplings.AdditiveCouplingTransform,
    others.ActNorm,
    others.OneByOneConvolution,
    others.Permutation,
    others.RandomPermutation,
    others.ReversePermutation,
    others.SqueezeTransform,
    others.StandardNormal,
    others.ConditionalDiagonalNormal,
    others.DiagonalNormal,
)
LAYERS = {kind.library_class(): kind for kind in _CLASSES if issubclass(kind, Accelerated)}

_RUNS_PARTS = "runs its parts, which are decided one by one"
_NETWORK = "a network"
LEFT = {
    "Flow": _RUNS_PARTS,
    "SimpleRealNVP": _RUNS_PARTS,
    "MultiscaleCompositeTransform": _RUNS_PARTS,
    "InverseTransform": _RUNS_PARTS,
    "ResidualNet": _NETWORK,
    "ResidualBlock": _NETWORK,
    "ConvResidualNet": _NETWORK,
    "ConvResidualBlock": _NETWORK,
    "MLP": _NETWORK,
    "BatchNorm": "statistics of the batch have no operator",
}
