"""Editable installations put the clone on ``sys.path``, so that they work from the folder above it too."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

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
