"""Whether the probabilities of a classifier mean what they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hybridkern._arguments import as_size
from hybridkern.hybrid._labels import check_labels
from hybridkern.hybrid.metrics import _check


class AccuracyConfidence(NamedTuple):
    """For each threshold ``(T,)``: accuracy of the examples at least so confident, and their share; float64."""

    threshold: Tensor
    accuracy: Tensor
    share: Tensor


class Reliability(NamedTuple):
    """For each bin ``(bins,)``: mean confidence, accuracy (NaN where the bin is empty), number of examples."""

    confidence: Tensor
    accuracy: Tensor
    examples: Tensor


def _judged(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Confidence ``(N,)`` and whether the most probable class is the label, ``(N,)`` float64."""
    p = _check.probabilities(probabilities)
    y = check_labels(labels, *p.shape)
    confidence, predicted = p.max(1)
    return confidence, (predicted == y).double()


def _as_given(values: Tensor, probabilities: Tensor) -> Tensor:
    """Numbers to compare with, in float64, rounded as the probabilities were: 0.9 in float32 is at least 0.9."""
    return values.to(probabilities.dtype).double()


def accuracy_confidence(
    probabilities: Tensor, labels: Tensor, thresholds: Sequence[float] | None = None
) -> AccuracyConfidence:
    """Accuracy among the examples whose highest probability is at least a threshold.

    A model that knows what it does not know has a curve that rises. Where no example is left the accuracy is NaN.

    Args:
        probabilities: ``(N, classes)``, rows of sum 1.
        labels: ``(N,)``, any integer dtype.
        thresholds: from 0 to 1, compared in the dtype of the probabilities; by default 0, 0.1, to 0.9.

    Raises:
        TypeError, ValueError: another type, shape or range.

    Source: Lakshminarayanan et al. 2017 (arXiv:1612.01474), section 3.5.
    """
    confidence, correct = _judged(probabilities, labels)
    given = [i / 10 for i in range(10)] if thresholds is None else [float(value) for value in thresholds]
    for value in given:
        if not 0 <= value <= 1:
            raise ValueError(f"thresholds: got {value!r}, expected numbers from 0 to 1")
    threshold = torch.tensor(given, dtype=torch.float64, device=confidence.device)
    kept = (confidence >= _as_given(threshold, probabilities)[:, None]).double()
    return AccuracyConfidence(threshold, (kept * correct).sum(1) / kept.sum(1), kept.mean(1))


def reliability(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Reliability:
    """Confidence and accuracy by bins of equal width of the confidence: a reliability diagram.

    Bin ``i`` of ``bins`` holds confidences in ``(i/bins, (i+1)/bins]``, ends in the dtype of the probabilities.
    Arguments and errors as for :func:`ece`.
    """
    bins = as_size("bins", bins)
    confidence, correct = _judged(probabilities, labels)
    ends = torch.arange(1, bins, dtype=torch.float64, device=confidence.device) / bins
    index = torch.bucketize(confidence, _as_given(ends, probabilities))
    count = torch.bincount(index, minlength=bins)
    sums = [torch.bincount(index, weights, minlength=bins) for weights in (confidence, correct)]
    return Reliability(sums[0] / count, sums[1] / count, count)


def ece(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error: the mean distance of confidence and accuracy over bins of the confidence.

    It depends on the number of bins, and small samples have one of about ``sqrt(bins / N)`` even when calibrated.

    Args:
        probabilities: ``(N, classes)``, rows of sum 1.
        labels: ``(N,)``, any integer dtype.
        bins: number of bins of equal width.

    Returns:
        From 0 (calibrated) to 1.

    Raises:
        TypeError, ValueError: another type, shape or range.

    Source: Guo et al. 2017 (arXiv:1706.04599), equation 3.
    """
    table = reliability(probabilities, labels, bins)
    used = table.examples > 0
    gaps = (table.confidence[used] - table.accuracy[used]).abs() * table.examples[used]
    return (gaps.sum() / table.examples.sum()).item()
