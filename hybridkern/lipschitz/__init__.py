"""Networks that shrink distances: layers of bounded spectral norm and activations of slope one."""

from hybridkern.lipschitz.activations import ClipSwish, LipSwish
from hybridkern.lipschitz.layers import LipschitzConv2d, LipschitzLayer, LipschitzLinear
from hybridkern.lipschitz.networks import DenseNet, PlainNet
from hybridkern.lipschitz.power import Weights, bounded_weights, iterate

__all__ = [
    "ClipSwish",
    "DenseNet",
    "LipSwish",
    "LipschitzConv2d",
    "LipschitzLayer",
    "LipschitzLinear",
    "PlainNet",
    "Weights",
    "bounded_weights",
    "iterate",
]
