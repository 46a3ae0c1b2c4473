"""The script of ``make wheel-test`` catches a report that lies, and hides the compilers that it means to hide."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest

from buildtools.environments import CommandError, Environment
from tests.packaging import wheel_cases
from tests.packaging.held import Held, key_of
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


def test_the_cases_of_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wheel with the torch it was built with; this Python with others; the corners of what is supported."""
    monkeypatch.setattr(wheel_cases, "path_without", lambda folder, *programs: str(folder))
    monkeypatch.setattr(wheel_cases, "interpreter", lambda version: None if version == "3.9" else f"python{version}")
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for version in ("3.9", "3.99", "3.98", here):
        tag = f"cp{version.replace('.', '')}"
        with ZipFile(tmp_path / f"hybridkern-1-{tag}-{tag}-manylinux_2_34_x86_64.whl", "w") as wheel:
            wheel.writestr("hybridkern/nodes_for/2.14.1/_nodes.so", "")
            if version != "3.98":
                wheel.writestr("hybridkern/_cuda.so", "")
    (tmp_path / "hybridkern-1.tar.gz").touch()
    corners = ("3.99:torch", "3.8:torch==2.10.0")
    works = wheel_cases.works_of(tmp_path, tmp_path, "torch==2.13.0", ("torch==2.9.1", "torch==2.10.0"), corners)
    found = {work.case.name: (work.python, work.torch, work.case.compiled, work.case.cuda) for work in works}
    assert found == {
        "no-compiler": (sys.executable, "torch==2.13.0", False, False),
        "no-nvcc": (sys.executable, "torch==2.13.0", True, False),
        f"wheel-{here}": (sys.executable, "torch==2.13.0", True, True),
        "torch-2.9.1": (sys.executable, "torch==2.9.1", False, False),
        "torch-2.10.0": (sys.executable, "torch==2.10.0", True, True),
        "wheel-3.98": ("python3.98", "torch==2.13.0", True, False),
        "wheel-3.99": ("python3.99", "torch==2.13.0", True, True),
        "wheel-3.99-torch-newest": ("python3.99", "torch", True, True),
    }
    assert {work.nodes for work in works if work.package.suffix == ".whl"} == {("2.13.0", "2.14.1")}


def test_a_case_that_held_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    works = [
        wheel_cases.Work(replace(CASE, name=name), tmp_path / "a.whl", "python", "torch", ()) for name in ("a", "b")
    ]
    (tmp_path / "a.whl").write_text("a wheel")
    (tmp_path / "tests").mkdir()

    def run_case(work: wheel_cases.Work, tests: Path, flags: list[str], quick: bool) -> bool:
        ran.append(work.case.name)
        return work.case.name == "a"

    monkeypatch.setattr(wheel_cases, "ROOT", tmp_path)
    monkeypatch.setattr(wheel_cases, "works_of", lambda *_: works)
    monkeypatch.setattr(wheel_cases, "tests_alone", lambda folder: folder.mkdir(parents=True, exist_ok=True) or folder)
    monkeypatch.setattr(wheel_cases, "run_case", run_case)

    def run(*arguments: str) -> list[str]:
        ran.clear()
        wheel_cases.main(arguments)
        return list(ran)

    assert wheel_cases.main([]) == 1 and ran == ["a", "b"]
    assert run() == ["b"]
    assert run("--cases", "a") == []
    assert run("--cases", "a", "--again") == ["a"]
    assert run("--test-flags=-x") == ["a", "b"]
    assert run("--test-flags=-x") == ["b"]
    assert run("--test-flags=-x", "--quick") == ["a", "b"]
    (tmp_path / "a.whl").write_text("another")
    assert run("--test-flags=-x") == ["a", "b"]
    with pytest.raises(SystemExit, match="--cases: got c, expected some of a, b"):
        wheel_cases.main(["--cases", "a,c"])


def test_what_a_case_hangs_on(tmp_path: Path) -> None:
    package, tests = tmp_path / "a.whl", tmp_path / "tests"
    tests.mkdir()
    keys = []
    for wheel, test, torch in (("1", "1", "1"), ("2", "1", "1"), ("2", "2", "1"), ("2", "2", "2")):
        package.write_text(wheel)
        (tests / "test_a.py").write_text(test)
        keys.append(key_of(package, tests, [torch]))
    assert len(set(keys)) == 4
    held = Held(tmp_path / "held.json")
    held.note("a", keys[0])
    held.note("b", keys[0])
    held.note("b", None)
    again = Held(tmp_path / "held.json")
    assert again("a", keys[0]) and not again("a", keys[1]) and not again("b", keys[0])
