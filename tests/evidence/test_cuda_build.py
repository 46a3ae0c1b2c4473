"""Whether the CUDA library is built: what HYBRIDKERN_CUDA and the machine decide; what was built can be loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from hybridkern import _extension, report
from tests.evidence import cuda_library
from tests.evidence.toolchain import ROOT


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


# The whole road of `import hybridkern` on a machine with a GPU, which only the device is missing from.
PRETENDED = """
import sys, hybridkern
from torch._C import _dispatch_dump
from torch._subclasses.fake_tensor import FakeTensorMode
import torch
from hybridkern.ops import _backends, _gpu
from hybridkern.ops._operator import OPERATORS
for name in sys.argv[1:]:
    assert "csrc" in _dispatch_dump("hybridkern::" + name).split("CUDA: ")[1].splitlines()[0], name
print(hybridkern.backends()["cuda"])
with FakeTensorMode():
    x = torch.empty(2, 3, device="cuda")
    print(*(f"{name}:{_backends.choose(operator, x)}" for name, operator in sorted(OPERATORS.items())))
    with hybridkern.use_backend("cuda", "reference"):
        print(*(f"{name}:{_backends.choose(operator, x)}" for name, operator in sorted(OPERATORS.items())))
    with hybridkern.use_backend("cuda"):
        try:
            _backends.choose(OPERATORS["gaussian_log_prob"], x)
        except RuntimeError as error:
            print(error)
"""
needs_library = pytest.mark.skipif(
    _extension.cuda_library_path() is None, reason="this installation has no CUDA library"
)


@needs_library
def test_import_loads_the_library_and_operators_choose_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRETENDED, *cuda_library.OPERATORS],
        env=os.environ | {"HYBRIDKERN_PRETEND_CUDA": "1"},
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    status, automatic, chosen, refused = done.stdout.splitlines()
    assert "available=True" in status and "without a device" in status
    native = {"affine_coupling", "affine_coupling_actnorm", "discretized_logistic", "rounding_coupling"}
    native.add("rounding_coupling_mirrored")  # as affine_coupling_actnorm: composed of one that the library has
    found = dict(pair.split(":") for pair in automatic.split())
    assert {name for name, backend in found.items() if backend == "cuda"} == native
    assert found["lipswish"] == "reference"  # its kernels are for CPUs
    assert {found["gaussian_log_prob"], found["coupling_network"]} <= {"triton", "reference"}
    found = dict(pair.split(":") for pair in chosen.split())
    assert {name for name, backend in found.items() if backend == "cuda"} == native
    assert "backend 'cuda' was chosen and has no kernel of gaussian_log_prob" in refused


@needs_library
def test_report_names_the_architectures() -> None:
    built = _extension.cuda_architectures()
    assert built == "sm_80,sm_90,sm_100,compute_80"
    assert built in report.report()


def test_state_of_the_library_has_a_reason() -> None:
    state = _extension.cuda_library()
    assert state.reason
    assert state.loaded == (torch.cuda.is_available() and _extension.cuda_library_path() is not None)
