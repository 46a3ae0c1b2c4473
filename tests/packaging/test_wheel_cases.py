"""The script of ``make wheel-test`` catches a report that lies, and hides the compilers that it means to hide."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from buildtools.environments import CommandError, Environment
from tests.packaging.wheel_cases import Case, falsehoods, path_without

REPORT = """\
backends
  reference                 available: plain PyTorch, any device
  cpp                       available: compiled C++ kernels, instruction set in use: avx512
  triton                    not available: torch sees no CUDA or ROCm device
  cuda                      not available: torch sees no CUDA or ROCm device
cpu
  autograd                  C++ autograd nodes, built for torch 2.13.0
cuda
  architectures built in    sm_80 sm_90
  devices that torch sees   none
versions
  torch                     2.13.0+cpu
"""
CASE = Case("nvcc-without-gpu", "", compiled=True, cuda=True, nodes=True)


def test_a_true_report_passes() -> None:
    assert falsehoods(REPORT, CASE, "2.13.0+cpu") == []


@pytest.mark.parametrize(
    ("case", "old", "new", "says"),
    [
        (CASE, "2.13.0+cpu", "2.14.1", "torch 2.13.0+cpu"),
        (CASE, "see   none".replace("see", "sees"), "sees   a GPU", "torch sees no GPU"),
        (CASE, "cuda                      not available", "cuda                      available", "the backend cuda"),
        (CASE, "triton                    not available", "triton                    available", "triton is not"),
        (CASE, "cpp                       available", "cpp                       not available", "cpp is available"),
        (CASE, "sm_80 sm_90", "none", "CUDA architectures are built in"),
        (CASE, "C++ autograd nodes", "Python functions: the C++", "autograd runs on C++"),
        (replace(CASE, nodes=False), "", "", "autograd runs on Python functions"),
        (replace(CASE, cuda=False), "", "", "CUDA architectures are not built in"),
        (replace(CASE, compiled=False), "", "", "the extension was not built"),
    ],
)
def test_a_false_report_is_caught(case: Case, old: str, new: str, says: str) -> None:
    assert old in REPORT
    (found,) = falsehoods(REPORT.replace(old, new) if old else REPORT, case, "2.13.0+cpu")
    assert says in found


def test_hidden_programs_are_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("g++", "g++-12", "sed"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{tmp_path / 'nowhere'}")
    path = path_without(tmp_path / "links", "g++", "nvcc")
    assert (
        shutil.which("sed", path=path) and not shutil.which("g++", path=path) and not shutil.which("g++-12", path=path)
    )


def test_a_failed_command_is_an_error_with_its_output(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    with pytest.raises(CommandError, match=r"ended with 3:\nsaid so"):
        Environment(tmp_path).run("-c", "import sys; print('said so'); sys.exit(3)")
