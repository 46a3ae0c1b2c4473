"""What ``make wheel`` chooses: interpreters, what is compiled once, which triton goes with a torch."""

from __future__ import annotations

import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from buildtools import made_before, make_wheels
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


def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], Path]:
    """``make wheel`` without compilers: what it was to compile, and the folder of its sources."""
    compiled: list[str] = []
    work = tmp_path / "work"
    sources = work / "source"
    for name in ("csrc/a.cpp", "hybridkern/a.py", "setup.py"):
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        (sources / name).write_text(name)

    def make_sdist(python: str, out: Path) -> Path:
        with tarfile.open(work / "a.tar.gz", "w") as archive:
            archive.add(sources, "hybridkern-1")
        return work / "a.tar.gz"

    def make_wheel(python: str, torches: Sequence[str], source: Path, objects: Path | None) -> Path:
        (source / "build" / "temp.linux").mkdir(parents=True, exist_ok=True)
        compiled.append(f"{python}: {'all' if objects is None else 'bindings'}")
        if python == "broken":
            raise CommandError("\n".join(f"line {number}" for number in range(99)))
        return source

    def repair(wheel: Path, out: Path, platform: str) -> Path:
        made = out / f"hybridkern-1-{wheel.parent.name}-a.whl"
        made.touch()
        return made

    for stand_in in (make_sdist, make_wheel, repair):
        monkeypatch.setattr(make_wheels, stand_in.__name__, stand_in)
    monkeypatch.setattr(make_wheels, "WORK", work)
    monkeypatch.setattr(make_wheels, "interpreter", lambda wanted: wanted)
    monkeypatch.setattr(make_wheels, "version_of", lambda python: python)
    return compiled, sources


def test_nothing_is_compiled_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, sources = planted(tmp_path, monkeypatch)
    out = tmp_path / "dist"

    def run(*arguments: str) -> list[str]:
        compiled.clear()
        assert make_wheels.main(["--pythons", "3.10 3.11", "--out", str(out), *arguments]) == 0
        return list(compiled)

    assert run() == ["3.10: all", "3.11: bindings"]
    assert run() == []
    (out / "hybridkern-1-python-3.11-a.whl").unlink()
    assert run() == ["3.11: bindings"]
    (sources / "hybridkern" / "a.py").write_text("changed")
    assert run() == ["3.10: bindings", "3.11: bindings"]
    (sources / "csrc" / "a.cpp").write_text("changed")
    assert run() == ["3.10: all", "3.11: bindings"]
    assert run("--torch", "torch==2.13.0 torch==2.14.1") == ["3.10: bindings", "3.11: bindings"]
    assert run("--torch", "torch==2.14.1") == ["3.10: all", "3.11: bindings"]
    monkeypatch.setenv("HYBRIDKERN_CUDA", "0")
    assert run("--torch", "torch==2.14.1") == ["3.10: all", "3.11: bindings"]


def test_a_run_that_was_ended_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was compiled stays where it is while the sources are the same."""
    planted(tmp_path, monkeypatch)
    sdist = make_wheels.make_sdist("3.11", tmp_path)
    folder = tmp_path / "work" / "python-3.11"
    (make_wheels.unpacked(sdist, folder, "a") / "compiled.o").touch()
    assert (make_wheels.unpacked(sdist, folder, "a") / "compiled.o").exists()
    assert not (make_wheels.unpacked(sdist, folder, "b") / "compiled.o").exists()


def test_a_failure_is_said_and_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(tmp_path, monkeypatch)
    assert make_wheels.main(["--pythons", "broken 3.11", "--out", str(tmp_path / "dist")]) == 1
    said = capsys.readouterr().out
    assert "Python broken: FAILED" in said and "line 98" in said and "line 60" not in said
    assert "1 wheels" in said and "failed: Python broken" in said
    assert "line 0\n" in (tmp_path / "work" / "failed-broken.log").read_text()


def test_names_and_contents_are_what_counts(tmp_path: Path) -> None:
    digests = set()
    for name, text in (("a", "b"), ("a", "c"), ("ab", ""), ("b", "a")):
        folder = tmp_path / f"{name}-{text}"
        (folder / "part").mkdir(parents=True)
        (folder / "part" / name).write_text(text)
        digests.add(made_before.digest(folder, ["part"]))
        assert made_before.digest(folder, ["part"]) in digests
    assert len(digests) == 4
    assert not made_before.is_of(folder, "a")
    made_before.mark(folder, "a")
    assert made_before.is_of(folder, "a") and not made_before.is_of(folder, "b")


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


def test_flags_of_pip_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin" / "python", f'echo "$@" > {tmp_path}/said')
    monkeypatch.setenv("PIP_FLAGS", "--extra-index-url URL")
    Environment(tmp_path).pip("install", "torch")
    said = (tmp_path / "said").read_text()
    assert said == "-m pip install --quiet --disable-pip-version-check --extra-index-url URL torch\n"
