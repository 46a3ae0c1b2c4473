"""Names in files for classes and functions, and which of them loading a file may use.

hybridkern's own public classes and those of ``torch.nn`` always; of anything else, what the caller of ``load`` allows.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from hybridkern._arguments import short
from hybridkern._saved.built import Built

_NETS = "hybridkern.nets"
_PUBLIC = (
    "hybridkern.flows",
    "hybridkern.hybrid",
    "hybridkern.hybrid.heads",
    "hybridkern.hybrid.vae",
    "hybridkern.distributions",
    "hybridkern.transforms",
    _NETS,
    "hybridkern.ops",
)
_TORCH = "torch.nn"


def name_of(value: Any) -> str:
    """The import path of a class or function; for those of hybridkern and ``torch.nn`` the public one."""
    own = str(value.__name__)
    for module in (*_PUBLIC, _TORCH) if value.__module__.startswith(("hybridkern.", "torch.")) else ():
        if vars(importlib.import_module(module)).get(own) is value:
            return f"{module}.{own}"
    return f"{value.__module__}.{value.__qualname__}"


def allowed(allow: Iterable[Any]) -> dict[str, Any]:
    """Classes and functions by their names; ``None`` for those that are still to be imported.

    Raises:
        TypeError: neither a class, a function nor an import path.
    """
    if isinstance(allow, str) or not isinstance(allow, Iterable):
        raise TypeError(f"allow: got {short(allow)}, expected a list of classes, functions or import paths")
    named: dict[str, Any] = {}
    for item in allow:
        if isinstance(item, str):
            named[item] = None
        elif callable(item) and hasattr(item, "__qualname__"):
            named[name_of(item)] = item
        else:
            raise TypeError(f"allow: got {short(item)}, expected a class, a function or an import path")
    return named


def resolve(name: str, allow: dict[str, Any]) -> Any:
    """The class or function of a name.

    Raises:
        ValueError: there is none of that name, or it is not one that may be used.
    """
    place, _, attribute = name.rpartition(".")
    if place in _PUBLIC or place == _TORCH:
        found = getattr(importlib.import_module(place), attribute, None)
        if not _is_ours(place, attribute, found):
            raise ValueError(f"got '{name}', expected a class of hybridkern {version()} or torch {torch.__version__}")
        return found
    if name not in allow:
        raise ValueError(
            f"got '{name}', expected a class of hybridkern or torch.nn; to import it, load with allow=['{name}']"
        )
    return allow[name] or _imported(name)


def _is_ours(place: str, attribute: str, found: Any) -> bool:
    if place == _NETS and attribute in importlib.import_module(place).__all__:
        return True
    if not isinstance(found, type):
        return False
    return issubclass(found, (nn.Module, Built)) or (place != _TORCH and dataclasses.is_dataclass(found))


def version() -> str:
    """Of hybridkern, once it is imported."""
    return str(getattr(sys.modules.get("hybridkern"), "__version__", ""))


def _imported(name: str) -> Any:
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[end:]:
            found = getattr(found, attribute, None)
        if callable(found):
            return found
    raise ValueError(f"got '{name}', expected the import path of a class or function")
