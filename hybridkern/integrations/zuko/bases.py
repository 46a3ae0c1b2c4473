"""The normal base of zuko's flows: its log-probability in one pass. Sampling is the library's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from zuko import distributions, lazy

from hybridkern.integrations._layer import WIDE, Accelerated, Options, has_own_parts
from hybridkern.ops import gaussian_log_prob

WIDTH = 16  # of narrower rows the operator is no faster


class DiagNormal(distributions.DiagNormal):
    """``gaussian_log_prob``."""

    def log_prob(self, value: Tensor) -> Tensor:
        """As in the library."""
        base = self.base_dist
        loc, scale = _row(base.loc), _row(base.scale)
        fits = (
            self.reinterpreted_batch_ndims == 1
            and loc is not None
            and scale is not None
            and value.dtype in WIDE
            and value.dtype is loc.dtype is scale.dtype
            and value.ndim >= base.loc.ndim
            and value.shape[-1:] == loc.shape
            and all(a in (1, b) for a, b in zip(base.loc.shape[::-1], value.shape[::-1], strict=False))
            and value.numel() > 0
            and (torch.compiler.is_compiling() or value.shape[-1] >= WIDTH)
        )
        if not fits:
            return super().log_prob(value)
        assert loc is not None and scale is not None
        log_p = gaussian_log_prob(value.reshape(-1, value.shape[-1]), loc, scale.log())
        return log_p.reshape(value.shape[:-1])


def _row(values: Tensor) -> Tensor | None:
    """The parameters ``(D,)`` that a batch shares; ``None`` where it has its own."""
    outer = zip(values.shape[:-1], values.stride()[:-1], strict=True)
    if not values.ndim or any(size != 1 and stride != 0 for size, stride in outer) or not values.numel():
        return None
    return values if values.ndim == 1 else values[(0,) * (values.ndim - 1)]


class UnconditionalDistribution(Accelerated, lazy.UnconditionalDistribution):
    """A diagonal normal distribution."""

    REPLACEMENT = "gaussian_log_prob"
    f: Any

    @classmethod
    def no_gain(cls, layer: Any, options: Options) -> str:
        """Other distributions."""
        return "" if layer.f is distributions.DiagNormal else "each of its passes is a few operations of PyTorch"

    def forward(self, c: Tensor | None = None) -> Distribution:
        """As in the library."""
        found: Distribution = super().forward(c)
        if type(found) is distributions.DiagNormal and not has_own_parts(self):
            found.__class__ = DiagNormal
        return found
