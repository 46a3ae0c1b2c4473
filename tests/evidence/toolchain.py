"""Which tools this machine has. ``HYBRIDKERN_TEST_REQUIRE_GPU_TOOLS=1`` makes a missing one a failure, not a skip."""

from __future__ import annotations

import importlib.util
import os
import shutil
from functools import cache
from pathlib import Path

import pytest

REQUIRED = os.environ.get("HYBRIDKERN_TEST_REQUIRE_GPU_TOOLS", "").strip() not in ("", "0")
ROOT = Path(__file__).resolve().parents[2]


@cache
def nvcc() -> str | None:
    """Path of nvcc: on PATH, or under ``$CUDA_HOME``."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc") or shutil.which(str(Path(home) / "bin" / "nvcc"))


def has_triton() -> bool:
    """The package triton is installed."""
    return importlib.util.find_spec("triton") is not None


def nvidia_tool(name: str) -> str:
    """``nvdisasm``, ``cuobjdump`` or ``ptxas``, as triton brings them."""
    import triton

    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def _missing(what: str, module: bool) -> None:
    message = f"{what} was not found: nothing is shown of the kernels that need it"
    if REQUIRED:
        pytest.fail(f"{message}, and HYBRIDKERN_TEST_REQUIRE_GPU_TOOLS is set", pytrace=False)
    pytest.skip(message, allow_module_level=module)


def require_disassembler() -> None:
    """Skips, or fails where the tools are required, without triton, which brings ``nvdisasm``."""
    if not has_triton():
        _missing("the package triton", False)


def require_triton(module: bool = False) -> None:
    """Skips, or fails where the tools are required, without triton and its interpreter.

    ``TRITON_INTERPRET`` is a decision of the whole process, and the rest of the suite wants none of it.
    """
    if not has_triton():
        _missing("the package triton", module)
    if os.environ.get("TRITON_INTERPRET") != "1":
        _missing("TRITON_INTERPRET=1, which `make evidence-test` sets,", module)


def require_nvcc(module: bool = False) -> str:
    """Skips, or fails where the tools are required, without nvcc; else its path."""
    found = nvcc()
    if found is None:
        _missing("nvcc", module)
    return str(found)
