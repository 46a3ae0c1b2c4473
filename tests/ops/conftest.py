"""The operator tests run with poisoned memory; those of compiled kernels alone need compiled kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from tests.conftest import COMPILED_BACKENDS, DEVICE

# A build without the extension has nothing for these to test; test_backends.py fails where it is required.
collect_ignore = [] if COMPILED_BACKENDS else ["test_instruction_sets.py", "test_registration.py", "test_threads.py"]
if DEVICE.type != "cpu":
    collect_ignore += ["test_instruction_sets.py", "test_threads.py"]  # of the CPU kernels


@pytest.fixture(autouse=True)
def _device() -> Iterator[None]:
    """Tensors that a test makes without naming a device lie on the device that is tested."""
    with nullcontext() if DEVICE.type == "cpu" else DEVICE:
        yield


@pytest.fixture(autouse=True)
def _poison(poisoned_memory: None) -> None:
    """Every operator test sees NaN in memory that was allocated and not written."""
