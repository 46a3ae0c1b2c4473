"""Leading singular vectors of small matrices by squaring: as many steps of power iteration as one likes for one product.

Power iteration multiplies by ``A = W^T W`` once a step, and takes hundreds of steps where the two largest singular
values are close, as they are in a trained layer. ``A^2``, ``A^4``, ... take 2, 4, ... of its steps at once. A product of
``n x n`` matrices costs as much as ``n`` steps, and far fewer calls: it gains up to a few hundred rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 256  # of the smaller side: beyond, the products cost more than they save
_FIRST = 2  # stage that is applied: the steps before take as many calls, and end nothing


def leading(weights: Tensor, start: Tensor, stages: int, least: float | None) -> Tensor:
    """The leading right singular vectors of ``L`` matrices.

    Args:
        weights: ``(L, O, I)``.
        start: near those of before, ``(L, I)``.
        stages: at most; ``s`` of them are about ``2^s`` steps.
        least: ends where no number of any vector moves by more in a stage; ``None``: nothing is asked for.

    Returns:
        ``(L, I)``, rows of norm one, or of zeros where a matrix is zero.
    """
    wide = weights.shape[1] < weights.shape[2]
    across = weights.mT
    power = _of_trace_one(weights @ across if wide else across @ weights)
    vectors = unit((weights * start[:, None]).sum(2)) if wide else start
    fixed = _fixed(vectors)
    for stage in range(stages):
        if stage >= _FIRST:
            before, vectors = vectors, _or_else(_applied(power, vectors), fixed)
            if least is not None and not float((vectors - before).abs().amax()) > least:
                break
        power = _of_trace_one(power @ power)
    return _applied(weights, vectors) if wide else unit(vectors)


def _of_trace_one(matrices: Tensor) -> Tensor:
    traces = matrices.diagonal(dim1=-2, dim2=-1).sum(-1)
    return matrices / traces.clamp_min(torch.finfo(matrices.dtype).tiny)[:, None, None]


def _applied(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Of the transposes of matrices: products from the left take an eighth of those from the right."""
    return unit((vectors[:, None] @ matrices)[:, 0])


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
