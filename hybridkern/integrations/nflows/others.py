"""Layers of nflows that move numbers, scale channels or mix them; Gaussian bases."""

from __future__ import annotations

import torch
from nflows.distributions import normal
from nflows.transforms import conv, normalization, permutations, reshape
from torch import Tensor
from torch.nn import functional as F

from hybridkern.integrations._channels import affine_channels, permuted, squeezed, unsqueezed
from hybridkern.integrations._layer import WIDE, Accelerated
from hybridkern.ops import gaussian_log_prob


class ActNorm(Accelerated, normalization.ActNorm):
    """Scale and shift in one pass; initialization from data is the library's."""

    REPLACEMENT = "scale and shift in one pass"

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data -> latent, as in the library."""
        if inputs.dim() not in (2, 4) or (self.training and not self.initialized):
            return super().forward(inputs, context)
        return affine_channels(inputs, *self._broadcastable_scale_shift(inputs)), self._log_det(inputs)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent -> data, as in the library."""
        if inputs.dim() not in (2, 4):
            return super().inverse(inputs, context)
        scale, shift = self._broadcastable_scale_shift(inputs)
        scale = scale.reciprocal()
        return affine_channels(inputs, scale, -shift * scale), -self._log_det(inputs)

    def _log_det(self, inputs: Tensor) -> Tensor:
        pixels = inputs[0, 0].numel() if len(inputs) else 0
        return (pixels * self.log_scale.sum()).to(inputs.dtype).expand(len(inputs)).clone()


class OneByOneConvolution(Accelerated, conv.OneByOneConvolution):
    """Permutation and triangular factors as one convolution; where the library caches them, its own way."""

    REPLACEMENT = "permutation and both factors as one convolution"

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data -> latent, as in the library."""
        if not self._folds(inputs):
            return super().forward(inputs, context)
        weight = self.weight().index_select(1, self.permutation._inverse_permutation)
        return F.conv2d(inputs, weight[:, :, None, None], self.bias), self._log_det(inputs)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent -> data, as in the library."""
        if not self._folds(inputs):
            return super().inverse(inputs, context)
        lower, upper = self._create_lower_upper()
        identity = torch.eye(self.features, dtype=lower.dtype, device=lower.device)
        half = torch.linalg.solve_triangular(lower, identity, upper=False, unitriangular=True)
        weight = torch.linalg.solve_triangular(upper, half, upper=True)
        weight = weight.index_select(0, self.permutation._inverse_permutation)
        return F.conv2d(inputs, weight[:, :, None, None], -torch.mv(weight, self.bias)), -self._log_det(inputs)

    def _folds(self, inputs: Tensor) -> bool:
        cached = self.using_cache and not self.training
        return inputs.dim() == 4 and inputs.dtype in WIDE and inputs.numel() > 0 and not cached

    def _log_det(self, inputs: Tensor) -> Tensor:
        return (self.logabsdet() * inputs[0, 0].numel()).expand(len(inputs)).clone()


class _Permutation(Accelerated):
    REPLACEMENT = "gather in forward and backward"
    _permutation: Tensor
    _inverse_permutation: Tensor
    _dim: int

    @classmethod
    def obstacle(cls, layer: permutations.Permutation) -> str:
        """Permutations of another dimension than that of the channels."""
        return "" if layer._dim == 1 else f"permutes dimension {layer._dim}, not 1"

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data -> latent, as in the library."""
        if inputs.dim() < 2 or inputs.shape[1] != len(self._permutation):
            return super().forward(inputs, context)  # type: ignore[misc]
        return permuted(inputs, self._permutation, self._inverse_permutation), inputs.new_zeros(len(inputs))

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent -> data, as in the library."""
        if inputs.dim() < 2 or inputs.shape[1] != len(self._permutation):
            return super().inverse(inputs, context)  # type: ignore[misc]
        return permuted(inputs, self._inverse_permutation, self._permutation), inputs.new_zeros(len(inputs))


class Permutation(_Permutation, permutations.Permutation):
    """A given permutation."""


class RandomPermutation(_Permutation, permutations.RandomPermutation):
    """A random one, fixed."""


class ReversePermutation(_Permutation, permutations.ReversePermutation):
    """The reversal."""


class SqueezeTransform(Accelerated, reshape.SqueezeTransform):
    """The library's order of channels is that of ``pixel_unshuffle``, which reads any strides."""

    REPLACEMENT = "pixel_unshuffle"

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data -> latent: pixels become channels."""
        if inputs.dim() != 4 or inputs.shape[2] % self.factor or inputs.shape[3] % self.factor:
            return super().forward(inputs, context)
        return squeezed(inputs, self.factor), inputs.new_zeros(len(inputs))

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent -> data: channels become pixels."""
        if inputs.dim() != 4 or inputs.shape[1] < 4 or inputs.shape[1] % 4 or inputs.shape[1] % self.factor**2:
            return super().inverse(inputs, context)
        return unsqueezed(inputs, self.factor), inputs.new_zeros(len(inputs))


class StandardNormal(Accelerated, normal.StandardNormal):
    """``gaussian_log_prob``."""

    REPLACEMENT = "gaussian_log_prob"

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        if inputs.dtype not in WIDE or inputs.shape[1:] != self._shape or not self._shape:
            return super()._log_prob(inputs, context)
        return gaussian_log_prob(inputs)


class ConditionalDiagonalNormal(Accelerated, normal.ConditionalDiagonalNormal):
    """``gaussian_log_prob`` with parameters from the context."""

    REPLACEMENT = "gaussian_log_prob"

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        if inputs.dtype not in WIDE or inputs.shape[1:] != self._shape:
            return super()._log_prob(inputs, context)
        means, log_stds = self._compute_params(context)
        if means.shape != inputs.shape or means.dtype is not inputs.dtype:
            return super()._log_prob(inputs, context)
        return gaussian_log_prob(inputs, means, log_stds)


class DiagonalNormal(Accelerated, normal.DiagonalNormal):
    """``gaussian_log_prob`` with trained parameters."""

    REPLACEMENT = "gaussian_log_prob"

    @classmethod
    def obstacle(cls, layer: normal.DiagonalNormal) -> str:
        """The library keeps the parameters of an image as a vector, which does not broadcast."""
        return "" if len(layer._shape) == 1 else "its parameters do not have the shape of its values"

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        if inputs.dtype is not self.mean_.dtype or inputs.dtype not in WIDE or inputs.shape[1:] != self._shape:
            return super()._log_prob(inputs, context)
        return gaussian_log_prob(inputs, self.mean_, self.log_std_)
