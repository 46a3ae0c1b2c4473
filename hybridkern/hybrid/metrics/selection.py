"""What a selective predictor gains in risk by giving up coverage."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hybridkern.hybrid.metrics import _check


class CoverageRisk(NamedTuple):
    """Points of the curve by rising coverage, ``(K,)`` float64: threshold, coverage, mean loss of the accepted."""

    threshold: Tensor
    coverage: Tensor
    risk: Tensor

    @property
    def area(self) -> float:
        """Area under the risk, each risk weighted by the coverage that its point adds."""
        added = torch.diff(self.coverage, prepend=self.coverage.new_zeros(1))
        return (added * self.risk).sum().item()


def coverage_risk(scores: Tensor, losses: Tensor) -> CoverageRisk:
    """The coverage-risk curve of accepting the examples whose score is at least a threshold, for every threshold.

    Args:
        scores: ``(N,)`` with ``N >= 1``, higher meaning more acceptable: ``log p(x)`` or a confidence.
        losses: ``(N,)``, of the prediction of each: 0 and 1 for right and wrong, or a squared error.

    Returns:
        One point for each distinct score; the last has coverage 1 and the risk of accepting everything.

    Raises:
        TypeError: not floating-point tensors.
        ValueError: another shape, no examples, or a NaN.

    Source: El-Yaniv and Wiener 2010, "On the foundations of noise-free selective classification"; Geifman and El-Yaniv
    2017 (arXiv:1705.08500).
    """
    values, costs = _check.scores("scores", scores), _check.scores("losses", losses)
    if len(values) != len(costs):
        raise ValueError(f"losses: got {len(costs)}, expected {len(values)}, one for each score")
    threshold, place, count = torch.unique(values, return_inverse=True, return_counts=True)
    total = torch.zeros_like(threshold).index_add_(0, place, costs)
    accepted = count.flip(0).cumsum(0).double()  # a ratio of integers would be float32
    return CoverageRisk(threshold.flip(0), accepted / len(values), total.flip(0).cumsum(0) / accepted)
