"""hybridkern: compiled kernels for flow-based hybrid models in PyTorch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hybridkern import flows, hybrid, ops, optim
from hybridkern._saved.files import load
from hybridkern.hybrid import HybridIDF
from hybridkern.ops._backends import BackendStatus, backends, use_backend

if TYPE_CHECKING:
    from hybridkern import codec, graphs, integrations

__version__ = "0.2.0"
__all__ = [
    "BackendStatus",
    "HybridIDF",
    "__version__",
    "backends",
    "codec",
    "flows",
    "graphs",
    "hybrid",
    "integrations",
    "load",
    "ops",
    "optim",
    "use_backend",
]
_LATER = ("codec", "graphs", "integrations")  # few programs use one of them: imported where it is first named


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return import_module(f"hybridkern.{name}")
    raise AttributeError(f"module 'hybridkern' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
