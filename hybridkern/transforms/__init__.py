"""Bijections that the flows are made of, and what brings data to them."""

from hybridkern.transforms.affine_coupling import AffineCoupling
from hybridkern.transforms.autoregressive import Autoregressive
from hybridkern.transforms.coupling import Coupling
from hybridkern.transforms.dequantize import dequantize
from hybridkern.transforms.elements import AffineElement, SplineElement
from hybridkern.transforms.linear import ActNorm, LULinear
from hybridkern.transforms.mixing import Mixing
from hybridkern.transforms.permute import Permutation
from hybridkern.transforms.planar import PlanarMap
from hybridkern.transforms.quarter_coupling import QuarterCoupling
from hybridkern.transforms.rounding_coupling import RoundingCoupling
from hybridkern.transforms.squeeze import squeeze, unsqueeze

__all__ = [
    "ActNorm",
    "AffineCoupling",
    "AffineElement",
    "Autoregressive",
    "Coupling",
    "LULinear",
    "Mixing",
    "Permutation",
    "PlanarMap",
    "QuarterCoupling",
    "RoundingCoupling",
    "SplineElement",
    "dequantize",
    "squeeze",
    "unsqueeze",
]
