"""Residual layers ``x + g(x)`` with a network ``g`` that shrinks distances."""

from hybridkern.transforms.residual.block import ResidualBlock
from hybridkern.transforms.residual.fixed_point import ConvergenceError
from hybridkern.transforms.residual.scale import ResidualScale
from hybridkern.transforms.residual.series import Series

__all__ = ["ConvergenceError", "ResidualBlock", "ResidualScale", "Series"]
