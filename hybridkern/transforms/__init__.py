"""Bijections that the flows are made of, and what brings data to them."""

from hybridkern.transforms.affine_coupling import AffineCoupling
from hybridkern.transforms.dequantize import dequantize
from hybridkern.transforms.mixing import Mixing
from hybridkern.transforms.permute import Permutation
from hybridkern.transforms.planar import PlanarMap
from hybridkern.transforms.rounding_coupling import RoundingCoupling
from hybridkern.transforms.squeeze import squeeze, unsqueeze

__all__ = [
    "AffineCoupling",
    "Mixing",
    "Permutation",
    "PlanarMap",
    "RoundingCoupling",
    "dequantize",
    "squeeze",
    "unsqueeze",
]
