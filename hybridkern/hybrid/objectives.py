"""Objectives of hybrid models: how much weight ``log p(x)`` gets beside ``log p(y|x)``.

Called with ``log_py`` and ``log_px`` ``(B,)`` in nats and the number ``dim`` of dimensions of ``x``, an objective
returns the loss of each example, ``(B,)`` in nats. Conventions of the weight differ between papers; the relation to
:class:`Weighted` is given with each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Objective(Protocol):
    """What :meth:`hybridkern.hybrid.HybridModel.loss` takes."""

    def __call__(self, log_py: Tensor, log_px: Tensor, dim: int) -> Tensor:
        """Loss of each example ``(B,)``."""


@dataclass(frozen=True)
class Joint:
    """``-log p(y|x) - log p(x)``, the negative log-likelihood of the pair: ``Weighted(1)``."""

    def __call__(self, log_py: Tensor, log_px: Tensor, dim: int) -> Tensor:
        """Loss of each example ``(B,)``."""
        return -(log_py + log_px)


@dataclass(frozen=True)
class Weighted:
    """``-log p(y|x) - lam * log p(x)``; with ``per_dimension`` the weight is ``lam / dim``.

    ``HybridIDF(alpha=a)`` is ``Weighted(a)``; bits per dimension plus cross-entropy over ``ln 2`` (residual flows) is
    proportional to ``Weighted(1, per_dimension=True)``.

    Raises:
        ValueError: ``lam`` is not a finite number of at least 0.

    Source: Nalisnick et al. 2019 (arXiv:1902.02767), the weighted objective.
    """

    lam: float
    per_dimension: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lam) and self.lam >= 0):
            raise ValueError(f"lam: got {self.lam!r}, expected a finite number of at least 0")

    def __call__(self, log_py: Tensor, log_px: Tensor, dim: int) -> Tensor:
        """Loss of each example ``(B,)``."""
        return -log_py - (self.lam / dim if self.per_dimension else self.lam) * log_px


@dataclass(frozen=True)
class Convex:
    """``-(1 - lam) * log p(y|x) - lam * log p(x)``: 0 is purely discriminative, 1 purely generative.

    ``(1 - lam) * Weighted(lam / (1 - lam))``.

    Raises:
        ValueError: ``lam`` is outside ``[0, 1]``.

    Source: Bouchard and Triggs 2004, "The tradeoff between generative and discriminative classifiers".
    """

    lam: float

    def __post_init__(self) -> None:
        if not 0 <= self.lam <= 1:
            raise ValueError(f"lam: got {self.lam!r}, expected a number from 0 to 1")

    def __call__(self, log_py: Tensor, log_px: Tensor, dim: int) -> Tensor:
        """Loss of each example ``(B,)``."""
        return -(1 - self.lam) * log_py - self.lam * log_px
