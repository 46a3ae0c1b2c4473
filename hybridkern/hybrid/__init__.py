"""Hybrid models: one pass gives exact ``p(x)`` and ``p(y|x)``."""

from hybridkern.hybrid import heads, metrics, objectives, scores
from hybridkern.hybrid.hybrid_idf import HybridIDF
from hybridkern.hybrid.model import HybridModel, HybridOutput, HybridSample
from hybridkern.hybrid.selective import SelectiveClassifier

__all__ = [
    "HybridIDF",
    "HybridModel",
    "HybridOutput",
    "HybridSample",
    "SelectiveClassifier",
    "heads",
    "metrics",
    "objectives",
    "scores",
]
