"""Hybrid models: one pass gives exact ``p(x)`` and ``p(y|x)``."""

from hybridkern.hybrid import heads, metrics, objectives
from hybridkern.hybrid.hybrid_idf import HybridIDF
from hybridkern.hybrid.model import HybridModel, HybridOutput

__all__ = ["HybridIDF", "HybridModel", "HybridOutput", "heads", "metrics", "objectives"]
