"""A pytest plugin: the operators of the CUDA library run emulated, in place of their CPU kernels.

``python -m pytest -p tests.evidence.emu.plugin tests/ops`` runs the operator tests of the backend "cpp" so.
"""

from __future__ import annotations

import ctypes

import pytest
import torch

from tests.evidence.emu.build import emulated_library

OPERATORS = (
    "affine_coupling_forward",
    "affine_coupling_backward",
    "affine_coupling_backward_from_output",
    "rounding_coupling_forward",
    "rounding_coupling_backward",
    "discretized_logistic_forward",
    "discretized_logistic_backward",
)
_installed: list[object] = []


def install() -> ctypes.CDLL:
    """Load the emulated library and give its kernels to the CPU tensors of this process."""
    import hybridkern  # noqa: F401  the schemas

    path = emulated_library()
    torch.ops.load_library(str(path))
    library = torch.library.Library("hybridkern", "IMPL")
    for name in OPERATORS:
        library.impl(name, getattr(torch.ops.hybridkern_emulated, name).default, "CPU", allow_override=True)
    loaded = ctypes.CDLL(str(path))
    loaded.hybridkern_emulated_launches.restype = ctypes.c_ulong
    _installed.extend([library, loaded])
    return loaded


def launches() -> int:
    """Kernels launched so far in this process."""
    return int(_installed[1].hybridkern_emulated_launches())  # type: ignore[attr-defined]


def pytest_configure(config: pytest.Config) -> None:
    install()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Only tests of the compiled backend, and none of operators without a CUDA kernel."""
    other = ("mixture", "gaussian", "mirrored")
    kept = [
        item
        for item in items
        if getattr(item, "callspec", None) is not None
        and item.callspec.params.get("backend") == "cpp"
        and not any(word in item.nodeid for word in other)
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"emulated kernels launched: {launches()}")
