"""Fixtures for every test: the backends that can run here, and memory that is never zero by luck."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import hybridkern

BACKENDS = tuple(name for name, status in hybridkern.backends().items() if status.available)
COMPILED_BACKENDS = tuple(name for name in BACKENDS if name != "reference")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once on every backend of this machine."""
    with hybridkern.use_backend(request.param):
        yield request.param


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Uninitialized tensors, from Python or C++, are full of NaN: an element that nobody wrote is seen."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]
