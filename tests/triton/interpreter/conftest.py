"""These run under the plugin ``tests.triton.interpreted`` only; see ``tests/triton/test_triton.py``."""

from __future__ import annotations

import os

import pytest

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["*.py"]


@pytest.fixture(autouse=True)
def _poison(poisoned_memory: None) -> None:
    """NaN in memory that was allocated and not written."""
