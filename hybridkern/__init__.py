"""hybridkern: compiled kernels for flow-based hybrid models in PyTorch."""

from hybridkern import codec, flows, graphs, hybrid, integrations, ops, optim
from hybridkern._saved.files import load
from hybridkern.hybrid import HybridIDF
from hybridkern.ops._backends import BackendStatus, backends, use_backend

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
