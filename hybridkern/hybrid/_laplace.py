"""The Laplace approximation of Bayesian logistic regression, in float64.

Source: Bishop 2006, "Pattern Recognition and Machine Learning", sections 4.3.3 and 4.5.1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hybridkern.hybrid._evidence import cholesky

_STEPS = 200
_ROUNDING = 1e-10


class Approximation(NamedTuple):
    """``N(mean, precision**-1)`` with the lower Cholesky factor of the precision, and the log evidence in nats."""

    mean: Tensor
    precision: Tensor
    precision_cholesky: Tensor
    log_evidence: float


def _log_posterior(z: Tensor, sign: Tensor, prior_precision: float, weights: Tensor) -> float:
    """Up to the prior's normalization."""
    return float(F.logsigmoid(sign * (z @ weights)).sum() - 0.5 * prior_precision * weights.square().sum())


def _precision(z: Tensor, prior_precision: float, weights: Tensor) -> Tensor:
    p = torch.sigmoid(z @ weights)
    eye = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    return prior_precision * eye + (z * (p * (1 - p))[:, None]).T @ z


def approximate(z: Tensor, sign: Tensor, prior_precision: float) -> Approximation:
    """Newton's method with halving steps; the log posterior is strictly concave, so that it always arrives.

    Args:
        z: features ``(N, F)``, float64.
        sign: ``(N,)``, 1 for the second class and -1 for the first.
        prior_precision: of each weight.

    Raises:
        ValueError: the precision is singular in float64, or the method did not converge.
    """
    weights = z.new_zeros(z.shape[1])
    value = _log_posterior(z, sign, prior_precision, weights)
    for _ in range(_STEPS):
        precision = _precision(z, prior_precision, weights)
        factor = cholesky(precision, "precision of the posterior")
        gradient = z.T @ (sign * torch.sigmoid(-sign * (z @ weights))) - prior_precision * weights
        step = torch.cholesky_solve(gradient[:, None], factor)[:, 0]
        rounding = _ROUNDING * max(1.0, abs(value))
        if float(gradient @ step) <= rounding * _ROUNDING:  # convergence is quadratic: the error is below rounding
            log_det = float(factor.diagonal().log().sum()) - 0.5 * len(weights) * math.log(prior_precision)
            return Approximation(weights, precision, factor, value - log_det)
        size = 1.0
        while size > _ROUNDING and _log_posterior(z, sign, prior_precision, weights + size * step) < value - rounding:
            size /= 2
        weights = weights + size * step
        value = _log_posterior(z, sign, prior_precision, weights)
    raise ValueError(f"z: Newton's method did not converge in {_STEPS} steps; expected features of moderate size")
