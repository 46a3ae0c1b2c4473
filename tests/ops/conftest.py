"""The operator tests run with poisoned memory; those of compiled kernels alone need compiled kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

import hybridkern
from hybridkern.ops._operator import OPERATORS
from tests.conftest import COMPILED_BACKENDS, DEVICE
from tests.ops.samples import has_kernels

# A build without the extension has nothing for these to test; test_backends.py fails where it is required.
_COMPILED = ("instruction_sets", "raw_operators", "registration", "threads")
collect_ignore = [] if COMPILED_BACKENDS else [f"test_{name}.py" for name in _COMPILED]
if DEVICE.type != "cpu":
    collect_ignore += ["test_instruction_sets.py", "test_threads.py"]  # of the CPU kernels


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A sample (``name``) runs on the backends (``backend``; ``level`` is of the C++ kernels) that have its kernels."""
    kept, dropped = [], []
    for item in items:
        given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        name, backend = given.get("name"), given.get("backend", "cpp" if "level" in given else None)
        # an empty list of backends, as where no compiled one runs, has a mark in place of a name
        known = str(name).partition(".")[0] in OPERATORS and isinstance(backend, str)
        (kept if not known or has_kernels(name, backend) else dropped).append(item)
    if dropped:
        items[:] = kept
        config.hook.pytest_deselected(items=dropped)


def _instruction_sets() -> list[str]:
    """Those of the build that this processor can run."""
    if "cpp" not in COMPILED_BACKENDS:
        return []
    from hybridkern import _C

    chosen, found = _C.instruction_set(), []
    for name in ("baseline", "avx2", "avx512"):
        try:
            _C.set_instruction_set(name)
        except ValueError:
            continue
        found.append(name)
    _C.set_instruction_set(chosen)
    return found


@pytest.fixture(params=_instruction_sets())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once on every instruction set of this machine, with the compiled kernels."""
    from hybridkern import _C

    chosen = _C.instruction_set()
    _C.set_instruction_set(request.param)
    assert _C.instruction_set() == request.param
    with hybridkern.use_backend("cpp"):
        yield request.param
    _C.set_instruction_set(chosen)


@pytest.fixture(autouse=True)
def _device() -> Iterator[None]:
    """Tensors that a test makes without naming a device lie on the device that is tested."""
    with nullcontext() if DEVICE.type == "cpu" else DEVICE:
        yield


@pytest.fixture(autouse=True)
def _poison(poisoned_memory: None) -> None:
    """Every operator test sees NaN in memory that was allocated and not written."""
