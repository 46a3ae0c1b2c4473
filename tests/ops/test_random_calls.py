"""2,000 random calls of the operators, right and wrong ones, compiled against reference and fakes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import COMPILED_BACKENDS

ROOT = Path(__file__).resolve().parents[2]
CALLS = 2000
GOOD = {"right", "clear", "raw accepted", "raw refused"}


@pytest.mark.skipif("cpp" not in COMPILED_BACKENDS, reason="needs the compiled kernels")
def test_random_calls_are_right_or_refused_clearly() -> None:
    """In a process of its own, so that one that dies is a failure with its seed and not the end of the tests."""
    command = [sys.executable, "-m", "tests.ops.random_calls", "0", str(CALLS)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, f"died with {run.returncode} at seed {run.stderr.strip().splitlines()[-1:]}"
    *complaints, last = run.stdout.splitlines()
    assert not complaints, "\n".join(complaints)
    counts = ast.literal_eval(last)
    assert counts.keys() == GOOD and sum(counts.values()) == CALLS
    assert all(count > CALLS / 20 for count in counts.values())  # none of the four kinds has died out
