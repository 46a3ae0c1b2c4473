"""Models written with normflows, nflows, FrEIA or zuko, with hybridkern's operators inside.

:func:`accelerate` changes the layers of one instance, :func:`undo` changes them back, and
``with accelerated(model):`` does both. Importing this package imports none of the libraries.
"""

from hybridkern.integrations._patch import accelerate, accelerated, undo
from hybridkern.integrations._report import Entry, Report

__all__ = ["Entry", "Report", "accelerate", "accelerated", "undo"]
