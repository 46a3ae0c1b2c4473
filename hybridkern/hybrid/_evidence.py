"""Bayesian linear regression in closed form, in float64: evidence, posterior, and the best hyperparameters.

The model is ``y = Z w + e`` with ``w ~ N(0, I / precision)`` and ``e ~ N(0, noise**2 I)``, so that
``y ~ N(0, noise**2 I + Z Z' / precision)``. ``Z`` is ``(N, F)``.

Source: Nalisnick et al. 2019 (arXiv:1902.02767), equation 13; Bishop 2006, "Pattern Recognition and Machine Learning",
sections 3.3 and 3.5.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hybridkern._values import can_look
from hybridkern.ops._bounds import held

_LOG_TWO_PI = math.log(2 * math.pi)
# Of the sum of squares of the targets, what the features must leave: it is a difference of sums, each right to some
# 1e-15 of itself, and half the number of rows times its error goes into the evidence.
_LEAST_REST = 1e-11


class Statistics(NamedTuple):
    """What the posterior depends on: ``Z'Z`` ``(F, F)``, ``Z'y`` ``(F,)``, ``y'y`` ``()``, ``N`` ``()``; float64."""

    gram: Tensor
    moment: Tensor
    square: Tensor
    rows: Tensor


class Posterior(NamedTuple):
    """``N(mean, P**-1)`` over the weights: ``mean`` ``(F,)`` and the lower Cholesky factor of ``P``, ``(F, F)``."""

    mean: Tensor
    precision_cholesky: Tensor


def statistics_of(z: Tensor, y: Tensor) -> Statistics:
    """The sufficient statistics of rows ``z`` ``(N, F)`` and ``y`` ``(N,)``, float64."""
    return Statistics(z.T @ z, z.T @ y, y @ y, torch.full((), float(len(z)), dtype=z.dtype, device=z.device))


def cholesky(matrix: Tensor, what: str) -> Tensor:
    """Lower Cholesky factor of a symmetric matrix that is positive definite unless rounding spoils it.

    Where no error can be raised, in compiled graphs and under ``vmap``, and in training steps on a device, which
    would wait for it, the factor of a singular matrix is NaN.

    Raises:
        ValueError: it is singular to working precision, and how to change that.
    """
    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(matrix)
    # A pivot of no more than rounding left over of its diagonal element: by luck a singular matrix may have a factor.
    least = len(matrix) * torch.finfo(matrix.dtype).eps * matrix.detach().diagonal()
    singular = (info != 0) | (factor.detach().diagonal().square() <= least).any()
    if not can_look() or matrix.is_meta or (torch.is_grad_enabled() and not matrix.is_cpu):
        return torch.where(singular, torch.nan, factor)
    if bool(singular):
        raise ValueError(
            f"{what}: singular to the working precision of float64, its features being linearly dependent: expected "
            "a larger prior_precision or noise, or independent features"
        )
    return factor


def posterior(statistics: Statistics, precision: Tensor, noise: Tensor) -> Posterior:
    """The posterior of the weights: precision ``precision I + Z'Z / noise**2``, mean ``P**-1 Z'y / noise**2``."""
    eye = torch.eye(len(statistics.gram), dtype=statistics.gram.dtype, device=statistics.gram.device)
    factor = cholesky(precision * eye + statistics.gram / noise.square(), "design matrix")
    mean = torch.cholesky_solve((statistics.moment / noise.square())[:, None], factor)[:, 0]
    return Posterior(mean, factor)


def _primal(errors: Tensor, weights: Posterior, count: Tensor, precision: Tensor, noise: Tensor) -> Tensor:
    """Evidence from the ``F x F`` factor, given the sum of squared errors of the posterior mean."""
    features = len(weights.mean)
    energy = errors / noise.square() + precision * weights.mean.square().sum()
    log_det = 2 * weights.precision_cholesky.diagonal().log().sum() - features * precision.log()
    return -0.5 * (energy + log_det + count * (_LOG_TWO_PI + 2 * noise.log()))


def evidence_of_features(z: Tensor, y: Tensor, precision: Tensor, noise: Tensor) -> Tensor:
    """``log p(y|Z)`` by the ``F x F`` form."""
    known = statistics_of(z, y)
    weights = posterior(known, precision, noise)
    # of the residuals, not from y'y - ...: that difference cancels where the fit is good
    return _primal((y - z @ weights.mean).square().sum(), weights, known.rows, precision, noise)


def evidence_of_rows(z: Tensor, y: Tensor, precision: Tensor, noise: Tensor) -> Tensor:
    """``log p(y|Z)`` by the ``N x N`` form, the paper's equation 13 as it stands."""
    eye = torch.eye(len(z), dtype=z.dtype, device=z.device)
    factor = cholesky(noise.square() * eye + z @ z.T / precision, "covariance of the targets")
    white: Tensor = torch.linalg.solve_triangular(factor, y[:, None], upper=False)
    return -0.5 * (white.square().sum() + 2 * factor.diagonal().log().sum() + len(z) * _LOG_TWO_PI)


def evidence(z: Tensor, y: Tensor, precision: Tensor, noise: Tensor) -> Tensor:
    """``log p(y|Z)`` by whichever of the two forms has the smaller matrix."""
    rows, features = z.shape
    return (evidence_of_rows if rows < features else evidence_of_features)(z, y, precision, noise)


def evidence_of_statistics(known: Statistics, precision: Tensor, noise: Tensor) -> Tensor:
    """``log p(y|Z)`` from sufficient statistics; the error is at most about 1e-14 of ``y'y / noise**2``."""
    if can_look() and not known.rows.is_meta and known.rows == 0:
        return 0 * precision
    weights = posterior(known, precision, noise)
    mean = weights.mean
    errors = known.square - 2 * mean @ known.moment + mean @ known.gram @ mean
    return _primal(held(errors, 0.0, math.inf), weights, known.rows, precision, noise)


def maximize(known: Statistics) -> tuple[float, float]:
    """The prior precision and noise with the greatest evidence.

    With ``ratio = 1 / (precision * noise**2)`` the covariance is ``noise**2 (I + ratio Z Z')``. The best noise is then
    known in closed form, and the evidence a function of ``ratio`` alone, of the eigenvalues of ``Z'Z``: searched on a
    grid over 28 decades and refined by golden section.

    Returns:
        ``(precision, noise)``.

    Raises:
        ValueError: no data, or data that the features explain without any error, so that the evidence grows without
            bound as the noise vanishes; or with one that sums in float64 do not resolve beside large targets.
    """
    if known.rows == 0 or known.square == 0:
        raise ValueError("observed data: got no rows or targets that are all 0, expected data to fit")
    values, vectors = torch.linalg.eigh(known.gram)
    largest = float(values[-1])
    if not largest > 0:
        raise ValueError("observed data: got features that are all 0, expected features that vary")
    used = values > largest * len(values) * torch.finfo(values.dtype).eps
    values, vectors = values[used], vectors[:, used]
    explained = (vectors.T @ known.moment).square() / values
    rest = float(known.square - explained.sum())
    count = float(known.rows)
    if count <= len(values) or rest <= _LEAST_REST * float(known.square):
        raise ValueError(
            f"observed data: {int(count)} rows are explained without error by {len(values)} independent features, "
            "in the digits of sums in float64; expected more rows than features, noisy targets, and targets about 0 "
            "(subtract their mean), or the evidence has no maximum that can be found"
        )

    def noise_variance(log_ratio: Tensor) -> Tensor:
        variance: Tensor = (rest + (explained / (1 + log_ratio.exp()[:, None] * values)).sum(1)) / count
        return variance

    def profile(log_ratio: Tensor) -> Tensor:
        return count * noise_variance(log_ratio).log() + torch.log1p(log_ratio.exp()[:, None] * values).sum(1)

    middle = -math.log(largest)
    grid = middle + math.log(10) * torch.linspace(-10, 18, 561, dtype=values.dtype)
    best = int(profile(grid.to(values.device)).argmin())
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        at_left, at_right = profile(torch.tensor([left, right], dtype=values.dtype, device=values.device)).tolist()
        if at_left < at_right:
            high = right
        else:
            low = left
    log_ratio = torch.tensor([(low + high) / 2], dtype=values.dtype, device=values.device)
    variance = float(noise_variance(log_ratio))
    return 1 / (math.exp(float(log_ratio)) * variance), math.sqrt(variance)
