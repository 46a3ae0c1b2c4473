"""A pytest plugin: the operators of the CUDA library run emulated, in place of their CPU kernels.

``python -m pytest -p tests.evidence.emu.plugin tests/ops`` runs the operator tests of the backend "cpp" so.
"""

from __future__ import annotations

import pytest

from tests.evidence.emu.library import launches, serve_cpu

_installed: list[object] = []


def pytest_configure(config: pytest.Config) -> None:
    _installed.append(serve_cpu())


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
