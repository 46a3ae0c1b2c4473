"""What ``make wheel`` chooses: interpreters, what is compiled once, which triton goes with a torch."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from buildtools import make_wheels
from buildtools.environments import CommandError, Environment, triton_of
from tests.packaging.test_torch_here import ROOT, load


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_interpreters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of that name on the path may refuse to run, as pyenv's do; pyenv's own folder then has it."""
    program(tmp_path / "bin" / "python3.11", "exit 127")
    program(tmp_path / "bin" / "python3.12", "echo 3.12")
    installed = program(tmp_path / "pyenv" / "versions" / "3.11.9" / "bin" / "python", "echo 3.11")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    assert make_wheels.interpreter("3.12") == "python3.12"
    assert make_wheels.interpreter("3.11") == str(installed)
    assert make_wheels.interpreter(str(installed)) == str(installed)
    assert make_wheels.interpreter("3.13") is None
    assert make_wheels.interpreter(str(tmp_path / "none")) is None


def test_without_any_interpreter_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(make_wheels, "interpreter", lambda wanted: None)
    assert make_wheels.main(["--pythons", "3.10 3.14", "--out", str(tmp_path / "dist")]) == 1
    said = capsys.readouterr().out
    assert "left out Python 3.10" in said and "left out Python 3.14" in said and "0 wheels" in said


def test_what_knows_of_python_is_compiled_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(ROOT)
    setup = load("hybridkern_setup", ROOT / "setup.py")
    files = setup.sources("*.cpp", "codec/*.cpp", "cpu/*.cpp")
    assert setup.compiled_before(files) == (files, [])
    monkeypatch.setattr(setup, "OBJECTS", "/objects")
    compiled, objects = setup.compiled_before(files)
    assert compiled == ["csrc/codec/bind_coder.cpp", "csrc/codec/bind_network.cpp", "csrc/module.cpp"]
    assert "/objects/csrc/cpu/isa.o" in objects and len(compiled) + len(objects) == len(files)


def test_headers_in_a_folder_that_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An isolated build has pybind11 in another folder each time; the command of a compiler stays the same."""
    pybind11 = pytest.importorskip("pybind11")
    monkeypatch.setattr(sys, "path", list(sys.path))
    setup = load("hybridkern_setup", ROOT / "setup.py")
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    found = []
    for isolated in ("a", "b"):
        header = tmp_path / isolated / "pybind11" / "pybind11.h"
        header.parent.mkdir(parents=True)
        header.touch()
        monkeypatch.setattr(pybind11, "get_include", lambda folder=isolated: str(tmp_path / folder))
        found.append(setup.pybind11_headers())
    assert found[0] == found[1] and (Path(found[0]) / "pybind11" / "pybind11.h").exists()


@pytest.mark.parametrize(
    ("asks", "triton"),
    [("Requires-Dist: triton~=3.6.0; platform_system == 'Linux'\n", "triton~=3.6.0"), ("", "triton")],
)
def test_the_triton_that_torch_asks_for(tmp_path: Path, asks: str, triton: str) -> None:
    folder = tmp_path / "torch-2.11.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: 2.11.0\n{asks}")
    assert triton_of(tmp_path) == triton


def test_pip_is_not_waited_for_without_end(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "python", "exec sleep 60")
    slow = Environment(tmp_path, patience=1.0, began=time.monotonic())
    with pytest.raises(CommandError, match="was not done in 1 s"):
        slow.pip("install", "torch")
