"""The GPUs of the machine as NVIDIA's management library knows them, without starting CUDA in this process.

Where CUDA has been started, processes that are forked cannot use it, and starting it takes time and memory: whoever
imports hybridkern has asked for neither.
"""

from __future__ import annotations

from ctypes import CDLL, byref, c_int, c_uint, c_void_p
from typing import Any, NamedTuple


class Machine(NamedTuple):
    """The newest CUDA that the driver runs, as ``1000 * major + 10 * minor``; compute capability of every GPU."""

    driver: int
    capabilities: list[tuple[int, int]]


def machine() -> Machine | None:
    """What the library says; ``None`` where there is none, or it does not answer."""
    try:
        return _asked(CDLL("libnvidia-ml.so.1"))
    except (OSError, AttributeError):  # no such library; one without such a function
        return None


def _asked(library: Any) -> Machine:
    def ask(name: str, *arguments: object) -> None:
        if getattr(library, name)(*arguments) != 0:
            raise OSError(f"{name} failed")

    driver, count, capabilities = c_int(), c_uint(), []
    ask("nvmlInit_v2")
    ask("nvmlSystemGetCudaDriverVersion_v2", byref(driver))
    ask("nvmlDeviceGetCount_v2", byref(count))
    for index in range(count.value):
        device, major, minor = c_void_p(), c_int(), c_int()
        ask("nvmlDeviceGetHandleByIndex_v2", c_uint(index), byref(device))
        ask("nvmlDeviceGetCudaComputeCapability", device, byref(major), byref(minor))
        capabilities.append((major.value, minor.value))
    return Machine(driver.value, capabilities)
