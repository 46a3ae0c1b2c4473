"""hybridkern: compiled kernels for flow-based hybrid models in PyTorch."""

from hybridkern import flows, hybrid, ops
from hybridkern.hybrid import HybridIDF
from hybridkern.ops._select import BackendStatus, backends, use_backend

__version__ = "0.1.0"
__all__ = ["BackendStatus", "HybridIDF", "__version__", "backends", "flows", "hybrid", "ops", "use_backend"]
