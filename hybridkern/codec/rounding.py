"""Weights as 8-bit integers, so that the sums they are for change least: not each weight, rounded to the nearest."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern.nets.neighborhoods import moments, summed

_LIMIT = 127
_TIED = 1e-4  # of the mean variance of inputs: below it directions keep the weights that were given
_LEAST = 2.0**-20  # of the variance of integers from 0 to 255: what is below is what rounding left of a constant
_DAMPING = 1e-5  # of the mean variance
_MOST_PIXELS = 1 << 15  # that covariances are computed from


def covariances(x: Tensor, y: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Of the neighborhoods of ``x`` ``(N, C, H, W)``, zeros beyond its edges, and of those with ``y`` ``(N, K, H, W)``.

    Returns:
        ``(C * side**2, C * side**2)`` and ``(C * side**2, K)``, float64.
    """
    every = max(1, len(x) * x.shape[2] * x.shape[3] // _MOST_PIXELS)
    _, _, square, product = moments(summed(x[::every].double(), y[::every].double(), side))
    return square, product


def fitted(weight: Tensor, square: Tensor, product: Tensor) -> Tensor:
    """Weights ``(out, in, k, k)`` that make of inputs with these covariances what is wanted, close to those given.

    Inputs are integers. Those that do not vary have the weights that were given.
    """
    tied = (_TIED * square.diagonal().mean()).clamp(min=_LEAST)
    matrix = square + tied * torch.eye(len(square), dtype=square.dtype, device=square.device)
    found: Tensor = torch.linalg.solve(matrix, product + tied * weight.flatten(1).mT)
    return found.mT.reshape(weight.shape)


def rounded(weight: Tensor, steps: Tensor, square: Tensor) -> Tensor:
    """Integers from -127 to 127 whose multiples of ``steps`` stand for ``weight``.

    One weight is rounded after the other, and those to come make up for its error as far as inputs go together. So the
    weights of smooth images, where neighbors are all but equal, keep their sum. An output channel for which that does
    no good has its weights rounded to the nearest.

    Args:
        weight: ``(out, in, k, k)``, float64.
        steps: ``(out,)``.
        square: covariance of the inputs, as :func:`covariances` gives it.

    Source: Frantar et al. 2023 (arXiv:2210.17323), algorithm 1, without blocks.
    """
    flat = weight.flatten(1) / steps[:, None]
    nearest = flat.round().clamp(-_LIMIT, _LIMIT)
    added = _DAMPING * square.diagonal().mean() + torch.finfo(square.dtype).tiny ** 0.5
    # the largest variances first: what is left over at the end then matters least
    order = square.diagonal().argsort(descending=True, stable=True)
    damped = square[order][:, order] + added * torch.eye(len(square), dtype=square.dtype, device=square.device)
    factor, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(torch.linalg.cholesky_ex(damped)[0]), upper=True)
    if failed or not factor.isfinite().all():
        return nearest.view_as(weight)
    left, found = flat[:, order].clone(), torch.empty_like(flat)
    for j in range(left.shape[1]):
        found[:, j] = left[:, j].round().clamp(-_LIMIT, _LIMIT)
        error = (left[:, j] - found[:, j]) / factor[j, j]
        left[:, j + 1 :] -= error[:, None] * factor[j, j + 1 :]
    found = torch.empty_like(found).index_copy_(1, order, found)
    worse = _error(found - flat, square) > _error(nearest - flat, square)
    return torch.where(worse[:, None], nearest, found).view_as(weight)


def _error(change: Tensor, square: Tensor) -> Tensor:
    return ((change @ square) * change).sum(1)
