"""Bijections that the flows are made of: each works in both directions through one ``forward``."""

from hybridkern.transforms.affine_coupling import AffineCoupling
from hybridkern.transforms.permute import Permutation
from hybridkern.transforms.planar import PlanarMap
from hybridkern.transforms.rounding_coupling import RoundingCoupling

__all__ = ["AffineCoupling", "Permutation", "PlanarMap", "RoundingCoupling"]
