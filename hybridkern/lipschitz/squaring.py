"""Leading singular vectors of small matrices: high powers of iteration in a few products, and a proof of the norm.

Power iteration multiplies by ``A = W^T W`` once per step, and takes hundreds of steps where the two largest singular
values are close, as they are in a trained layer. A Chebyshev polynomial of degree 64 of ``A`` holds all eigenvalues
below what was reached before to the same size, and lifts those above by as much as thousands of steps do. Six products
make it, since ``C_2k = C_k^2 - 2`` for ``C(x) = 2 T(x / 2)``. A product of ``n x n`` matrices costs as much as ``n``
steps in far fewer calls, which gains up to a few hundred rows. Where the vectors of before are close enough, the proof
is all that is computed.

Source of the recurrence: Abramowitz and Stegun 1964, 22.5.36 and 22.7.24.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 256  # of the smaller side: beyond, the products cost more than they save
_FIRST = 4  # steps before anything is squared
_SQUARINGS = 6  # a stage: degree 64
_BELOW = 0.995  # of what was reached: where that is the norm, all else still shrinks
_SETTLED = 0.03  # of the tolerance: where the first steps gained more, the proof would fail
_MIXED = 0.01  # of another vector in a stage's start: no direction is out of sight for good


def leading(weights: Tensor, start: Tensor, stages: int, tolerance: float | None) -> Tensor:
    """The leading right singular vectors of ``L`` matrices.

    Args:
        weights: ``(L, O, I)``.
        start: near those of before, ``(L, I)``.
        stages: polynomials, at most.
        tolerance: ends where ``(1 + tolerance) |W v|`` is above the norm of ``W`` for all matrices, which a Cholesky
            factorization shows; ``None``: nothing is asked for, and all stages run.

    Returns:
        ``(L, I)``, rows of norm one, or of zeros where a matrix is zero.
    """
    wide = weights.shape[1] < weights.shape[2]
    across = weights.mT
    gram = _of_trace_one(weights @ across if wide else across @ weights)
    vectors = unit((weights * start[:, None]).sum(2)) if wide else start
    fixed = _fixed(vectors)
    before = _reached(gram, vectors)
    for _ in range(_FIRST):
        vectors = _products(gram, vectors)
    vectors = _or_else(unit(vectors), fixed)
    for stage in range(stages):
        reached = _reached(gram, vectors)
        hopeful = stage or tolerance is None or not bool((reached > (1 + _SETTLED * tolerance) * before).any())
        if tolerance is not None and hopeful and _are_bounds(gram, reached, tolerance):
            break
        vectors = _or_else(_applied(_polynomial(gram, reached), vectors + _MIXED * fixed), fixed)
    return _applied(weights, vectors) if wide else unit(vectors)


def _polynomial(grams: Tensor, reached: Tensor) -> Tensor:
    """``C(4 A / low - 2)`` up to a factor, ``low`` a little below ``reached``: ``(L, n, n)``."""
    # no less than what a matrix of trace one must reach: from a far start the powers stay in range
    low = _BELOW * reached.clamp_min(1 / grams.shape[-1])
    found, scale = grams * (4 / low)[:, None, None], torch.ones_like(reached)
    _diagonal(found).sub_(2)
    for i in range(_SQUARINGS):
        if i % 2:
            size = torch.linalg.vector_norm(found, dim=(1, 2)).clamp_min(torch.finfo(grams.dtype).tiny)
            found, scale = found / size[:, None, None], scale * size
        found, scale = found @ found, scale.square()
        _diagonal(found).sub_((2 / scale)[:, None])
    return found


def _diagonal(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2)


def _reached(grams: Tensor, vectors: Tensor) -> Tensor:
    found: Tensor = (_products(grams, vectors) * vectors).sum(1)
    return found


def _are_bounds(grams: Tensor, reached: Tensor, tolerance: float) -> bool:
    """Whether no eigenvalue is above ``bound = (1 + tolerance)^2 reached``: then ``bound I - A`` is positive."""
    bounds = (1 + tolerance) ** 2 * reached + torch.finfo(grams.dtype).tiny
    gaps = torch.diag_embed(bounds[:, None].expand(grams.shape[:2])) - grams
    return not bool(torch.linalg.cholesky_ex(gaps).info.any())


def _of_trace_one(matrices: Tensor) -> Tensor:
    traces = matrices.diagonal(dim1=-2, dim2=-1).sum(-1)
    return matrices / traces.clamp_min(torch.finfo(matrices.dtype).tiny)[:, None, None]


def _applied(matrices: Tensor, vectors: Tensor) -> Tensor:
    return unit(_products(matrices, vectors))


def _products(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Of the transposes of matrices: products from the left take an eighth of those from the right."""
    found: Tensor = (vectors[:, None] @ matrices)[:, 0]
    return found


def unit(vectors: Tensor) -> Tensor:
    """Rows of norm one; a row of zeros stays."""
    norms = torch.linalg.vector_norm(vectors, dim=tuple(range(1, vectors.ndim)), keepdim=True)
    found: Tensor = vectors / norms.clamp_min(torch.finfo(vectors.dtype).tiny)
    return found


def restarted(vectors: Tensor) -> Tensor:
    """Rows of zeros, or that are not finite, replaced by a fixed one: no iteration would lead out of them."""
    return _or_else(vectors.flatten(1), _fixed(vectors)).view_as(vectors)


def _fixed(vectors: Tensor) -> Tensor:
    turns = torch.arange(1, vectors[0].numel() + 1, dtype=vectors.dtype, device=vectors.device)
    fixed = torch.sin(turns * turns)  # of no pattern that a weight could be blind to
    unit_one: Tensor = fixed / fixed.norm()
    return unit_one


def _or_else(rows: Tensor, fixed: Tensor) -> Tensor:
    lost = ~(torch.linalg.vector_norm(rows, dim=1, keepdim=True) > 0.5)  # NaN too; else they have norm 1
    return torch.where(lost, fixed, rows)
