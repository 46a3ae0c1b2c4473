"""Editable installations put the clone on ``sys.path``, so that they work from the folder above it too."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_mode_of_editable_installations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "buildtools"))
    spec = importlib.util.spec_from_file_location("hybridkern_build", ROOT / "buildtools" / "hybridkern_build.py")
    assert spec is not None and spec.loader is not None
    backend = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(backend)
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(
        backend.build_meta, "build_editable", lambda folder, settings, _: seen.append(settings) or "a.whl"
    )
    assert backend.build_editable("out") == "a.whl"
    backend.build_editable("out", {"editable_mode": "strict"})
    assert [settings["editable_mode"] for settings in seen] == ["compat", "strict"]
    sys.modules.pop("torch_here", None)


BUILD = "import sys, hybridkern_build; print(hybridkern_build.build_editable(sys.argv[1]))"
IMPORT = "import site, sys; site.addsitedir(sys.argv[1]); import hybridkern; print(hybridkern.__version__)"


def test_from_the_folder_above_the_clone(tmp_path: Path) -> None:
    """There the clone, a folder without ``__init__.py``, has the package's name and comes first on ``sys.path``."""
    clone, site = tmp_path / "hybridkern", tmp_path / "site"
    site.mkdir()
    for folder in ("buildtools", "hybridkern_command"):
        shutil.copytree(ROOT / folder, clone / folder)
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy2(ROOT / file, clone)
    (clone / "hybridkern").mkdir()
    (clone / "hybridkern" / "__init__.py").write_text('__version__ = "9.9"\n')
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    building = kept | {"PYTHONPATH": str(clone / "buildtools"), "HYBRIDKERN_NO_EXT": "1"}

    def run(*arguments: str, cwd: Path, env: dict[str, str]) -> str:
        done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("-c", BUILD, str(site), cwd=clone, env=building)
    (wheel,) = site.glob("*.whl")
    ZipFile(wheel).extractall(site)
    assert run("-S", "-c", IMPORT, str(site), cwd=tmp_path, env=kept) == "9.9\n"
