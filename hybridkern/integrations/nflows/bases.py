"""Gaussian bases of nflows: their log-probability in one pass. Sampling is the library's."""

from __future__ import annotations

from nflows.distributions import normal
from torch import Tensor

from hybridkern.integrations._layer import WIDE, Accelerated, Given
from hybridkern.ops import gaussian_log_prob


class StandardNormal(Accelerated, normal.StandardNormal):
    """``gaussian_log_prob``."""

    REPLACEMENT = "gaussian_log_prob"

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        if inputs.dtype not in WIDE or inputs.shape[1:] != self._shape or not self._shape or inputs.numel() == 0:
            return super()._log_prob(inputs, context)
        return gaussian_log_prob(inputs)


class ConditionalDiagonalNormal(Accelerated, normal.ConditionalDiagonalNormal):
    """``gaussian_log_prob`` with parameters from the context."""

    REPLACEMENT = "gaussian_log_prob"

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        if inputs.dtype not in WIDE or inputs.shape[1:] != self._shape or inputs.numel() == 0:
            return super()._log_prob(inputs, context)
        means, log_stds = self._compute_params(context)
        if means.shape != inputs.shape or means.dtype is not inputs.dtype:
            given = Given(self, _compute_params=(means, log_stds))  # the context's network has run
            return normal.ConditionalDiagonalNormal._log_prob(given, inputs, context)
        return gaussian_log_prob(inputs, means, log_stds)


class DiagonalNormal(Accelerated, normal.DiagonalNormal):
    """``gaussian_log_prob`` with trained parameters."""

    REPLACEMENT = "gaussian_log_prob"

    @classmethod
    def obstacle(cls, layer: normal.DiagonalNormal) -> str:
        """The library keeps the parameters of an image as a vector, which does not broadcast."""
        return "" if len(layer._shape) == 1 else "its parameters do not have the shape of its values"

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        known = inputs.dtype is self.mean_.dtype is self.log_std_.dtype and inputs.dtype in WIDE
        if not known or inputs.shape[1:] != self._shape or inputs.numel() == 0:
            return super()._log_prob(inputs, context)
        return gaussian_log_prob(inputs, self.mean_, self.log_std_)
