"""The flow libraries whose layers hybridkern knows, and their versions."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from dataclasses import dataclass
from types import ModuleType

from torch import nn


@dataclass(frozen=True)
class Library:
    """A flow library: its distribution, the versions whose sources were read, and the module with its layers."""

    distribution: str
    versions: tuple[str, ...]
    layers: str


LIBRARIES = {
    "normflows": Library("normflows", ("1.7",), "hybridkern.integrations.normflows"),
    "nflows": Library("nflows", ("0.14",), "hybridkern.integrations.nflows"),
    "FrEIA": Library("FrEIA", ("0.2",), "hybridkern.integrations.freia"),
    "zuko": Library("zuko", ("1.6",), "hybridkern.integrations.zuko"),
}


def library_of(layer: nn.Module) -> str | None:
    """The library that its class, or a class above that, comes from."""
    roots = (base.__module__.partition(".")[0] for base in type(layer).__mro__)
    return next((root for root in roots if root in LIBRARIES), None)


def layers_of(name: str) -> ModuleType:
    """The module with the tables ``LAYERS``, ``ROOTS``, ``CONTAINERS`` and ``NO_GAIN`` of an imported library.

    Raises:
        RuntimeError: its version is not supported.
    """
    library = LIBRARIES[name]
    version = _version(name, library)
    if not any(version == known or version.startswith(known + ".") for known in library.versions):
        raise RuntimeError(
            f"{name}: got version {version}, expected {' or '.join(library.versions)}, whose layers hybridkern knows; "
            "the model was left as it is"
        )
    return importlib.import_module(library.layers)


def _version(name: str, library: Library) -> str:
    stated = getattr(sys.modules.get(name), "__version__", None)
    if stated is not None:
        return str(stated)
    try:
        return importlib.metadata.version(library.distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
