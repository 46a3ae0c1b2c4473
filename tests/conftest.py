"""Fixtures for every test: the backends that can run here, and memory that is never zero by luck."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

import pytest
import torch

import hybridkern

# Where the tensors of the operator tests lie: HYBRIDKERN_TEST_DEVICE=cuda runs them on a GPU (also on ROCm).
DEVICE = torch.device(os.environ.get("HYBRIDKERN_TEST_DEVICE", "cpu"))
_SERVE = {"cpu": ("reference", "cpp"), "cuda": ("reference", "triton", "cuda")}
BACKENDS = tuple(
    name for name, status in hybridkern.backends().items() if status.available and name in _SERVE[DEVICE.type]
)
COMPILED_BACKENDS = tuple(name for name in BACKENDS if name != "reference")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first: at the end one process would wait for another."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once on every backend of this machine."""
    with hybridkern.use_backend(request.param):
        yield request.param


@pytest.fixture
def reference_backend() -> Iterator[None]:
    """Plain PyTorch computes."""
    with hybridkern.use_backend("reference"):
        yield


@pytest.fixture
def threads_restored() -> Iterator[None]:
    """PyTorch has as many threads after the test as before it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread(threads_restored: None) -> None:
    """PyTorch computes on one thread."""
    torch.set_num_threads(1)


M_PERTURB = -6  # from glibc's malloc.h
POISON_BYTE = 0x7F  # 3.4e38 in float32 and bfloat16, 1.4e306 in float64, NaN in float16


def poison_malloc(enabled: bool) -> bool:
    """Make ``malloc`` fill what it hands out with :data:`POISON_BYTE`; False where the C library cannot."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(M_PERTURB, POISON_BYTE ^ 0xFF if enabled else 0) == 1


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Uninitialized tensors are full of NaN, or of absurd numbers: an element that nobody wrote is seen.

    PyTorch fills what goes through its dispatcher with NaN; the C library fills what kernels allocate beside it.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    poison_malloc(True)
    try:
        yield
    finally:
        poison_malloc(False)
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]
