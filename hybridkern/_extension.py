"""Loads the compiled extension ``hybridkern._C`` and keeps the reason when that fails.

Importing the module registers the CPU kernels of the operators with PyTorch's dispatcher; their schemas are defined
in :mod:`hybridkern.ops`. A missing extension is no error: the package then runs on the reference backend.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import NamedTuple

import torch

from hybridkern import _env


class Extension(NamedTuple):
    """The loaded module, or ``None`` and the reason why there is none."""

    module: ModuleType | None
    reason: str


def _load() -> Extension:
    if _env.NO_EXTENSION:
        return Extension(None, "switched off by HYBRIDKERN_NO_EXT")
    try:
        module = importlib.import_module("hybridkern._C")
    except ModuleNotFoundError as error:
        if error.name != "hybridkern._C":
            raise
        why = "no C++ compiler at install time, a failed build, or HYBRIDKERN_NO_EXT=1"
        return Extension(None, f"the extension was not built ({why})")
    except ImportError as error:
        return Extension(None, f"the extension does not load with torch {torch.__version__}: {error}")
    level = module.instruction_set()
    return Extension(module, f"compiled C++ kernels, instruction set in use: {level}")


extension: Extension = _load()
