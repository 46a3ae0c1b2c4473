"""The laboratory: training, recipes, experiments, data, pictures and the command line. Nothing outside imports it.

``hybridkern.lab.fit`` trains a model of your own; it needs the packages of ``pip install 'hybridkern[train]'``.
"""

from importlib import import_module
from typing import Any

_FITTING = ("fit", "History", "TrainingError")


def __getattr__(name: str) -> Any:
    if name not in _FITTING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("hybridkern.lab.fitting"), name)  # Lightning, once somebody asks for it
