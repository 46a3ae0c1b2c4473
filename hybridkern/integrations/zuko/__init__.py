"""The lazy transforms of zuko that hybridkern computes, and why others stay."""

from __future__ import annotations

from torch import nn
from zuko.lazy import LazyDistribution, LazyTransform

from hybridkern.integrations._layer import Accelerated
from hybridkern.integrations.zuko import bases, layers

_CLASSES: tuple[type[nn.Module], ...] = (
    layers.MaskedAutoregressiveTransform,
    layers.GeneralCouplingTransform,
    layers.ElementWiseTransform,
    bases.UnconditionalDistribution,
)
LAYERS = {kind.library_class(): kind for kind in _CLASSES if issubclass(kind, Accelerated)}
ROOTS = (LazyTransform, LazyDistribution)

CONTAINERS = {
    *("Flow", "MAF", "NSF", "NCSF", "NICE", "RealNVP", "GF", "NAF", "UNAF", "SOSPF", "BPF", "CNF"),
    *("LazyComposedTransform", "LazyInverse"),
}
NO_GAIN = {
    "UnconditionalTransform": "a few parameters, shared by all examples",
    "GMM": "its passes are products of matrices",
}
