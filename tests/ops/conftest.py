"""The operator tests run with poisoned memory; those of compiled kernels alone need compiled kernels."""

from __future__ import annotations

import pytest

from tests.conftest import COMPILED_BACKENDS

# A build without the extension has nothing for these to test; test_backends.py fails where it is required.
collect_ignore = [] if COMPILED_BACKENDS else ["test_instruction_sets.py", "test_registration.py", "test_threads.py"]


@pytest.fixture(autouse=True)
def _poison(poisoned_memory: None) -> None:
    """Every operator test sees NaN in memory that was allocated and not written."""
