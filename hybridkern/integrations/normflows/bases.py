"""Gaussian base distributions of normflows: their log-probability in one pass. Sampling is the library's."""

from __future__ import annotations

import math

import torch
from normflows.distributions import base
from torch import Tensor
from torch.nn import functional as F

from hybridkern.integrations._layer import WIDE, Accelerated
from hybridkern.ops import gaussian_log_prob


def _log_prob(layer: base.BaseDistribution, z: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor | None:
    """``None`` where the operator does not fit."""
    if (
        not isinstance(z, Tensor)
        or z.dtype not in WIDE
        or loc.dtype is not z.dtype
        or log_scale.dtype is not z.dtype
        or z.shape[1:] != layer.shape
    ):
        return None
    if len(loc) not in (1, len(z)) or z.numel() == 0:
        return None
    if layer.temperature is not None:
        log_scale = log_scale + math.log(layer.temperature)
    return gaussian_log_prob(z, loc, log_scale)


class DiagGaussian(Accelerated, base.DiagGaussian):
    """``gaussian_log_prob``."""

    REPLACEMENT = "gaussian_log_prob"

    def log_prob(self, z: Tensor, context: object = None) -> Tensor:
        """As in the library."""
        done = _log_prob(self, z, self.loc, self.log_scale)
        return super().log_prob(z, context) if done is None else done


class ClassCondDiagGaussian(Accelerated, base.ClassCondDiagGaussian):
    """``gaussian_log_prob`` with the parameters of each example's class."""

    REPLACEMENT = "gaussian_log_prob"

    def log_prob(self, z: Tensor, y: Tensor) -> Tensor:
        """As in the library."""
        weights = F.one_hot(y, self.num_classes).to(self.loc.dtype) if y.dim() == 1 else y
        loc, log_scale = ((value @ weights.t()).permute(*self.perm) for value in (self.loc, self.log_scale))
        done = _log_prob(self, z, loc, log_scale)
        return super().log_prob(z, y) if done is None else done


class GlowBase(Accelerated, base.GlowBase):
    """``gaussian_log_prob`` with one mean and scale for each channel."""

    REPLACEMENT = "gaussian_log_prob"

    def log_prob(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """As in the library; without gradients its passes over small parameters cost less."""
        if not torch.is_grad_enabled():
            return super().log_prob(z, y)
        loc = self.loc * torch.exp(self.loc_logs * self.logscale_factor)
        log_scale = self.log_scale * torch.exp(self.log_scale_logs * self.logscale_factor)
        if self.class_cond:
            if y is None:
                return super().log_prob(z, y)
            weights = F.one_hot(y, self.num_classes).to(self.loc.dtype) if y.dim() == 1 else y
            shape = (len(weights), self.shape[0], *(1,) * (self.n_dim - 1))
            loc, log_scale = (
                loc + (weights @ self.loc_cc).view(shape),
                log_scale + (weights @ self.log_scale_cc).view(shape),
            )
        done = _log_prob(self, z, loc, log_scale)
        return super().log_prob(z, y) if done is None else done
