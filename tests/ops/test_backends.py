"""Choosing a backend: explicit choice fails loudly, automatic choice falls back once and says why."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest
import torch

import hybridkern
from hybridkern import ops
from hybridkern.ops._backends import choose, state
from hybridkern.ops._operator import OPERATORS
from tests.conftest import BACKENDS
from tests.ops.samples import SAMPLES, a_shape, run

FALLBACK = """
import warnings, torch
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import hybridkern
    for _ in range(3):
        hybridkern.ops.gaussian_log_prob(torch.zeros(2, 3))
        hybridkern.ops.rounding_coupling(torch.zeros(2, 3), torch.zeros(2, 3))
ours = [str(w.message) for w in caught if "hybridkern" in str(w.message)]
print(len(ours), *ours, hybridkern.backends()["cpp"], sep="\\n")
"""
QUIET = """
import warnings, torch
warnings.simplefilter("error")
import hybridkern
from hybridkern.ops._backends import choose
from hybridkern.ops.gaussian_log_prob.operator import OPERATOR
print(choose(OPERATOR, torch.zeros(1)), float(hybridkern.ops.gaussian_log_prob(torch.zeros(1, 1))))
"""


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter with these variables and none of the caller's own choices."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HYBRIDKERN_")}
    return subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_compiled_backend_is_there_where_it_is_required() -> None:
    """``HYBRIDKERN_TEST_REQUIRE_CPP=1`` makes sure that a broken build cannot pass on the reference alone."""
    status = hybridkern.backends()["cpp"]
    required = os.environ.get("HYBRIDKERN_TEST_REQUIRE_CPP", "") == "1"
    assert status.available or not required, f"the compiled backend is missing: {status.reason}"


def test_backends_names_all_with_a_reason() -> None:
    table = hybridkern.backends()
    assert list(table) == ["reference", "cpp", "triton", "cuda"]
    assert all(isinstance(status.available, bool) and status.reason for status in table.values())
    assert table["reference"].available


def test_automatic_choice_takes_the_compiled_kernels() -> None:
    with hybridkern.use_backend("auto"):
        assert choose(OPERATORS["gaussian_log_prob"], torch.zeros(1)) == BACKENDS[-1]


def arguments(name: str) -> dict[str, torch.Tensor]:
    sample = SAMPLES[name]
    return sample.arguments(a_shape(sample, (2, 3), (2, 3, 4, 5)), torch.float32)


def break_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every public function of every operator's reference.py raises ``ZeroDivisionError``."""

    def broken(*args: object) -> None:
        raise ZeroDivisionError

    for name in OPERATORS:
        module = importlib.import_module(f"hybridkern.ops.{name}.reference")
        for own, value in vars(module).copy().items():
            if getattr(value, "__module__", "") == module.__name__ and not own.startswith("_"):
                monkeypatch.setattr(module, own, broken)


@pytest.mark.parametrize("name", SAMPLES)
def test_chosen_backend_is_the_one_that_runs(backend: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reference formulas made to raise, the reference raises and every other backend does not notice."""
    break_formulas(monkeypatch)
    function, args = SAMPLES[name].function, arguments(name)
    if backend == "reference":
        with pytest.raises(ZeroDivisionError):
            function(*args.values())
    elif name.endswith("from_output"):  # where a gradient is wanted, it runs on formulas that have one
        function(*args.values())
    else:
        run(function, args)


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match="backend: got 'fortran', expected 'auto' or one of 'reference', 'cpp'"):  # noqa: SIM117
        with hybridkern.use_backend("fortran"):
            pass


def test_unavailable_backend_gives_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "has_cpp", False)
    reason = hybridkern.backends()["cpp"].reason
    with pytest.raises(RuntimeError, match="backend 'cpp' is not available") as caught:  # noqa: SIM117
        with hybridkern.use_backend("cpp"):
            pass
    assert reason in str(caught.value)


def test_explicit_choice_never_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "has_cpp", True)
    elsewhere = torch.zeros(2, 3, device="meta")
    with hybridkern.use_backend("cpp"), pytest.raises(RuntimeError, match=r"'cpp' was chosen .* x is on meta"):
        ops.gaussian_log_prob(elsewhere)


def test_choice_nests_and_ends_with_its_block() -> None:
    before = state.names()
    with hybridkern.use_backend("reference"):
        with hybridkern.use_backend("auto"):
            assert state.names() == ()
        assert state.names() == ("reference",)
    with pytest.raises(KeyError), hybridkern.use_backend("reference"):
        raise KeyError
    assert state.names() == before


def test_reference_fallback_is_said_once_with_the_reason() -> None:
    done = python(FALLBACK, HYBRIDKERN_NO_EXT="1")
    assert done.returncode == 0, done.stderr
    count, message, status = done.stdout.strip().splitlines()
    assert count == "1"
    assert "reference backend" in message and "HYBRIDKERN_NO_EXT" in message
    assert "available=False" in status and "HYBRIDKERN_NO_EXT" in status


def test_environment_chooses_the_default_without_a_warning() -> None:
    done = python(QUIET, HYBRIDKERN_NO_EXT="1", HYBRIDKERN_BACKEND=" Reference ")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("reference -0.918")


@pytest.mark.parametrize(("name", "says"), [("fortran", "expected 'auto'"), ("cpp", "is not available")])
def test_environment_with_a_wrong_choice_fails_at_import(name: str, says: str) -> None:
    done = python("import hybridkern", HYBRIDKERN_NO_EXT="1", HYBRIDKERN_BACKEND=name)
    assert done.returncode != 0
    assert f"HYBRIDKERN_BACKEND={name}" in done.stderr and says in done.stderr
