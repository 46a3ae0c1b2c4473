"""Which torch the extension is built with, and which one the package then asks for."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The module, with an empty folder for the interpreter's packages."""
    module = load("torch_here", ROOT / "buildtools" / "torch_here.py")
    monkeypatch.setattr(module, "folders", lambda: [str(tmp_path)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    return module


def install(folder: Path, version: str) -> None:
    """What there is of an installed torch."""
    for path, text in {
        f"torch-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n",
        "torch/__init__.py": "",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def found_at(monkeypatch: pytest.MonkeyPatch, here: ModuleType, origin: str | None) -> None:
    spec = None if origin is None else ModuleSpec("torch", None, origin=origin)
    monkeypatch.setattr(here.util, "find_spec", lambda name: spec)


@pytest.mark.parametrize(
    ("version", "fetched"),
    [(None, ["torch>=2.10"]), ("2.8.0", ["torch>=2.10"]), ("2.9.1+cu128", []), ("2.11.0+cu130", []), ("2.15.0a0", [])],
)
def test_a_torch_that_stays_is_not_fetched_again(
    here: ModuleType, tmp_path: Path, version: str | None, fetched: list[str]
) -> None:
    if version is not None:
        install(tmp_path, version)
    assert here.required_to_build() == fetched


def test_the_installed_torch_is_found_from_an_isolated_environment(
    here: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "2.11.0+cu130")
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert here.make_importable() == "2.11.0+cu130"
    assert sys.path == [str(tmp_path)]
    assert here.required_to_run("2.11.0+cu130") == "torch>=2.9"


@pytest.mark.parametrize(
    ("origin", "asked"),
    [
        ("/tmp/pip-build-env-x/overlay/lib/torch/__init__.py", "torch==2.14.1"),  # pip's, thrown away after the build
        ("/home/me/.cache/uv/builds/x/lib/torch/__init__.py", "torch>=2.9"),  # it hides what else there is
    ],
)
def test_a_torch_fetched_for_the_build_is_asked_for(
    here: ModuleType, monkeypatch: pytest.MonkeyPatch, origin: str, asked: str
) -> None:
    found_at(monkeypatch, here, origin)
    assert here.required_to_run("2.14.1+cpu") == asked


def test_without_any_torch_nothing_is_pinned(here: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    found_at(monkeypatch, here, None)
    assert here.make_importable() is None
    assert here.required_to_run(None) == "torch>=2.9"


@pytest.mark.parametrize(
    ("torch", "compiler", "why"),
    [
        ("2.10.0", "c++", None),
        ("2.9.1+cu128", "c++", "torch 2.9.1+cu128 is older than 2.10"),
        (None, "c++", "no torch to build with"),
        ("2.13.0", None, "no C++ compiler on PATH"),
    ],
)
def test_what_keeps_the_extension_from_being_built(
    monkeypatch: pytest.MonkeyPatch, torch: str | None, compiler: str | None, why: str | None
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    setup = load("hybridkern_setup", ROOT / "setup.py")
    monkeypatch.setattr(setup, "compiler", lambda: compiler)
    assert setup.obstacle(torch) == why


def test_toolkit_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    setup = load("hybridkern_setup", ROOT / "setup.py")
    nvcc = tmp_path / "bin" / "nvcc"
    assert setup.toolkit_version(str(tmp_path)) == "none"
    nvcc.parent.mkdir()
    nvcc.write_text('#!/bin/sh\necho "Cuda compilation tools, release 13.0, V13.0.48"\n')
    nvcc.chmod(0o755)
    assert setup.toolkit_version(str(tmp_path)) == "13.0"
