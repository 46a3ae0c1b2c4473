"""Metrics for hybrid models: likelihoods, calibration, detection of outliers, selective prediction.

Everything is computed in float64, in any order of the examples.
"""

from hybridkern.hybrid.metrics.calibration import (
    AccuracyConfidence,
    Reliability,
    accuracy_confidence,
    ece,
    reliability,
)
from hybridkern.hybrid.metrics.detection import aupr, auroc, fpr95
from hybridkern.hybrid.metrics.likelihood import bits_per_dim, nll
from hybridkern.hybrid.metrics.selection import CoverageRisk, coverage_risk

__all__ = [
    "AccuracyConfidence",
    "CoverageRisk",
    "Reliability",
    "accuracy_confidence",
    "aupr",
    "auroc",
    "bits_per_dim",
    "coverage_risk",
    "ece",
    "fpr95",
    "nll",
    "reliability",
]
