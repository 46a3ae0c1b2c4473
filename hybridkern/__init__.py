"""hybridkern: compiled kernels for flow-based hybrid models in PyTorch."""

from hybridkern import ops
from hybridkern.ops._select import BackendStatus, backends, use_backend

__version__ = "0.1.0"
__all__ = ["BackendStatus", "__version__", "backends", "ops", "use_backend"]
