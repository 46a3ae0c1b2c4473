"""Calls that run out of memory raise, and so leave what a thread keeps from call to call that later calls are right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import COMPILED_BACKENDS

ROOT = Path(__file__).resolve().parents[2]
# Each allocation of the call is the first that fails, one after the other; the last try has memory enough.
CODE = """
import resource, torch, hybridkern
backward = torch.ops.hybridkern.discretized_logistic_mixture_backward
def arguments(components):
    params = [torch.linspace(-1, 1, components).view(1, components, 1) + i for i in range(3)]
    return torch.ones(2), torch.zeros(2, 1), *params, 1.0, True
torch.set_num_threads(1)
many = arguments(6000)
expected = [value.clone() for value in backward(*many)]
backward(*arguments(2))
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
failed = 0
for more in range(0, 2**28, 2**22):
    resource.setrlimit(resource.RLIMIT_AS, (used + more, resource.RLIM_INFINITY))
    try:
        found = backward(*many)
    except (MemoryError, RuntimeError):
        failed += 1
        continue
    assert all(map(torch.equal, found, expected))
print(failed)
"""


@pytest.mark.skipif("cpp" not in COMPILED_BACKENDS, reason="needs the compiled kernels")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits its own memory")
def test_a_call_after_one_that_found_no_memory() -> None:
    """In a process of its own, whose memory is limited."""
    run = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr[-2000:]
    assert int(run.stdout) >= 3
