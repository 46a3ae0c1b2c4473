"""How well a score tells data of the training distribution from others; a higher score means "in distribution"."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern.hybrid.metrics import _check


def auroc(in_scores: Tensor, out_scores: Tensor) -> float:
    """Area under the receiver operating characteristic: the probability that an in-score exceeds an out-score.

    Ties count half, so that 0.5 is chance; below 0.5 the score prefers the outliers, as ``log p(x)`` of some image
    models does (:mod:`hybridkern.hybrid.scores`).

    Args:
        in_scores: of in-distribution examples, ``(N,)``, higher meaning more in distribution, such as ``log p(x)``.
        out_scores: of others, ``(M,)``.

    Raises:
        TypeError: not floating-point tensors.
        ValueError: another shape, no scores, or a NaN. Infinite scores are taken as they are.

    Source: Hanley and McNeil 1982, "The meaning and use of the area under a ROC curve".
    """
    inside, outside = _check.scores("in_scores", in_scores), _check.scores("out_scores", out_scores)
    ordered = outside.sort().values
    below = torch.searchsorted(ordered, inside)
    not_above = torch.searchsorted(ordered, inside, right=True)
    return ((below + not_above).double().sum() / (2 * len(inside) * len(outside))).item()


def aupr(in_scores: Tensor, out_scores: Tensor) -> float:
    """Area under precision over recall (average precision), in-distribution examples being the positives.

    Chance is ``N / (N + M)``, not 0.5. For outliers as the positives: ``aupr(-out_scores, -in_scores)``. Arguments and
    errors as for :func:`auroc`; equal scores are accepted or rejected together.

    Source: Davis and Goadrich 2006, "The relationship between Precision-Recall and ROC curves".
    """
    inside, outside = _check.scores("in_scores", in_scores), _check.scores("out_scores", out_scores)
    thresholds = torch.unique(inside)  # ascending; an out-score between two of them changes no recall
    positives = len(inside) - torch.searchsorted(inside.sort().values, thresholds)
    negatives = len(outside) - torch.searchsorted(outside.sort().values, thresholds)
    precision = positives / (positives + negatives).double()
    recall = positives.double() / len(inside)
    steps = recall - torch.cat([recall[1:], recall.new_zeros(1)])
    return (steps * precision).sum().item()


def fpr95(in_scores: Tensor, out_scores: Tensor) -> float:
    """Share of the out-scores accepted at the highest threshold that accepts 95 % of the in-scores.

    A score is accepted if it is at least the threshold. Arguments and errors as for :func:`auroc`; 0 is perfect,
    chance is 0.95.
    """
    inside, outside = _check.scores("in_scores", in_scores), _check.scores("out_scores", out_scores)
    needed = -(-95 * len(inside) // 100)
    threshold = inside.sort(descending=True).values[needed - 1]
    return (outside >= threshold).double().mean().item()
