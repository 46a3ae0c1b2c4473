"""Training a model of one's own on arrays of one's own."""

from hybridkern.lab.fitting.history import History
from hybridkern.lab.fitting.module import TrainingError
from hybridkern.lab.fitting.run import fit

__all__ = ["History", "TrainingError", "fit"]
