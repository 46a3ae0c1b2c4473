"""Whether the CUDA library is built: what HYBRIDKERN_CUDA and the machine decide; what was built can be loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hybridkern import _extension, report
from tests.evidence import cuda_library
from tests.evidence.toolchain import ROOT

OPERATORS = (
    "affine_coupling_forward",
    "affine_coupling_backward",
    "affine_coupling_backward_from_output",
    "rounding_coupling_forward",
    "rounding_coupling_backward",
    "discretized_logistic_forward",
    "discretized_logistic_backward",
)


@pytest.fixture(scope="module")
def setup() -> ModuleType:
    return cuda_library.setup()


@pytest.mark.parametrize(
    ("wanted", "home", "builds"),
    [
        ("", "/cuda", True),
        ("auto", "/cuda", True),
        ("AUTO", None, False),
        ("0", "/cuda", False),
        ("0", None, False),
        ("1", "/cuda", True),
    ],
)
def test_decision(setup: ModuleType, wanted: str, home: str | None, builds: bool) -> None:
    assert setup.cuda_decision(wanted, home) is builds


def test_demanded_without_a_toolkit(setup: ModuleType) -> None:
    with pytest.raises(SystemExit, match="HYBRIDKERN_CUDA=1, but no CUDA toolkit"):
        setup.cuda_decision("1", None)


def test_unknown_choice(setup: ModuleType) -> None:
    with pytest.raises(SystemExit, match="HYBRIDKERN_CUDA: got 'yes', expected auto, 0 or 1"):
        setup.cuda_decision("yes", "/cuda")


def test_toolkit_is_found_by_its_compiler(setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Never by a GPU: a folder with an nvcc is enough, and CUDA_HOME without one is none."""
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert setup.cuda_home() is None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").touch(mode=0o755)
    assert setup.cuda_home() == str(tmp_path)


LOADS = """
import sys, torch, hybridkern
torch.ops.load_library(sys.argv[1])
for name in sys.argv[2:]:
    assert "CUDA: registered" in torch._C._dispatch_dump("hybridkern::" + name), name
print("all registered")
"""
needs_library = pytest.mark.skipif(
    _extension.cuda_library_path() is None, reason="this installation has no CUDA library"
)


@needs_library
def test_library_loads_and_registers_its_operators_without_a_gpu() -> None:
    path = str(_extension.cuda_library_path())
    done = subprocess.run(
        [sys.executable, "-c", LOADS, path, *OPERATORS], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout.strip() == "all registered", done.stderr


@needs_library
def test_report_names_the_architectures() -> None:
    built = _extension.cuda_architectures()
    assert built == "sm_80,sm_90,sm_100,compute_80"
    assert built in report.report()


def test_state_of_the_library_has_a_reason() -> None:
    state = _extension.cuda_library()
    assert state.reason
    assert state.loaded == bool(state.operators)
