"""Which backends are measured on a device."""

from __future__ import annotations

import hybridkern
from benchmarks.gpu.device import Device
from hybridkern.ops import _gpu
from hybridkern.ops._operator import OPERATORS


def backends_of(device: Device) -> list[str]:
    """The compiled backends that serve the device; where there are none, the formulas, so that the code runs."""
    wanted = ("cuda", "triton") if device.is_gpu else ("cpp",)
    found = [name for name, status in hybridkern.backends().items() if name in wanted and status.available]
    return found if found or device.is_gpu else ["reference"]


def serves(backend: str, name: str) -> bool:
    """Whether a backend has kernels of an operator: an explicit choice does not fall back to one that does."""
    operator = OPERATORS[name]
    if backend == "cpp":
        return bool(operator.dtypes)
    served = {"triton": _gpu.triton_operators(), "cuda": _gpu.state.native}
    return backend == "reference" or (operator.made_of or operator.name) in served[backend]
