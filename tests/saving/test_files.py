"""The two files of a saved model: the folder they lie in, damage, and what writing and reading them needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

import hybridkern
from hybridkern import flows
from hybridkern.hybrid import HybridModel, heads

ROOT = Path(__file__).resolve().parents[2]


def test_folders(tmp_path: Path) -> None:
    flow = flows.Planar(2)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"path: got a folder with 'notes.txt' in it"):
        flow.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    for layers in (1, 2):  # a saved model may be replaced
        flows.Planar(2, layers=layers).save(tmp_path / "model")
        assert len(hybridkern.load(tmp_path / "model").maps) == layers
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors: no such file"):
        hybridkern.load(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_models_of_other_libraries_are_not_written_over(tmp_path: Path, name: str) -> None:
    others = {"config.json": b'{"architectures": ["ViT"]}', "model.safetensors": save({"w": torch.ones(3)})}
    (tmp_path / name).write_bytes(others[name])
    with pytest.raises(ValueError, match=f"path: got a folder whose {name} is not hybridkern's"):
        flows.Planar(2).save(tmp_path)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [others[name]]


def test_a_damaged_model_may_be_replaced(tmp_path: Path) -> None:
    flows.Planar(2).save(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    flows.Planar(2, layers=2).save(tmp_path)
    assert len(hybridkern.load(tmp_path).maps) == 2


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_empty_file_may_be_replaced(tmp_path: Path, name: str) -> None:
    """A full disk or a crash may leave one."""
    flows.Planar(2).save(tmp_path)
    (tmp_path / name).write_bytes(b"")
    flows.Planar(2, layers=2).save(tmp_path)
    assert len(hybridkern.load(tmp_path).maps) == 2


@pytest.mark.parametrize("name", ["model", "model.safetensors"])
def test_writers_at_the_same_time(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stages files of its own: the second writes between the first one's writing and moving."""
    first, second, sync = flows.Planar(2, layers=1), flows.Planar(2, layers=2), os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (monkeypatch.setattr(os, "fsync", sync), second.save(path)))
    path = tmp_path / name
    first.save(path)
    assert len(hybridkern.load(path).maps) == 1
    kept = {"model.safetensors", "config.json"} if path.is_dir() else {name}
    assert {entry.name for entry in (path if path.is_dir() else tmp_path).iterdir()} == kept


def test_what_a_killed_writer_left_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / ".model.7.123.tmp.safetensors").write_text("half")
    flows.Planar(2).save(tmp_path)
    assert hybridkern.load(tmp_path).dim == 2


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    said = json.loads(path.read_text())
    said.pop("checksum")
    change(said["model"])
    path.write_text(json.dumps(said))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights": (
        lambda p: (p / "model.safetensors").write_bytes((p / "model.safetensors").read_bytes()[:-4] + b"\0\1\2\3"),
        "checksum of the weights",
    ),
    "config": (
        lambda p: (p / "config.json").write_text((p / "config.json").read_text().replace("null", "false")),
        "checksum is another",
    ),
    "text": (lambda p: (p / "config.json").write_text("{"), "config.json: "),
    "other": (lambda p: (p / "config.json").write_text("{}"), "got no entry 'model'"),
    "argument": (
        lambda p: changed(p / "config.json", lambda m: m["built"]["arguments"].update(layers=-1)),
        "layers: got",
    ),
    "size": (lambda p: changed(p / "config.json", lambda m: m["built"]["arguments"].update(hidden=9)), "size mismatch"),
    "code": (
        lambda p: changed(p / "config.json", lambda m: m["built"].update({"class": "os.system"})),
        "got 'os.system', expected a class of hybridkern",
    ),
    "function": (
        lambda p: changed(p / "config.json", lambda m: m["built"].update({"class": "torch.nn.functional"})),
        "got 'torch.nn.functional', expected a class",
    ),
    "module": (
        lambda p: changed(p / "config.json", lambda m: m["built"].update({"class": "hybridkern.lab.cli.main"})),
        "got 'hybridkern.lab.cli.main', expected a class",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    damage, message = DAMAGE[name]
    flows.RealNVP(2, layers=1, hidden=4).save(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message):
        hybridkern.load(tmp_path)


def test_arguments_of_load(tmp_path: Path) -> None:
    flows.Planar(1).save(tmp_path)
    for allow in ("tests.saving.own.Doubling", [3]):
        with pytest.raises(TypeError, match="allow: got"):
            hybridkern.load(tmp_path, allow=allow)


def test_loading_needs_no_laboratory(tmp_path: Path) -> None:
    HybridModel(flows.Planar(2), heads.Gaussian(2)).save(tmp_path)
    code = (
        "import sys, hybridkern; before = set(sys.modules); hybridkern.load(sys.argv[1]); "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'lightning', 'rich', 'typer', 'matplotlib', 'scipy', 'sklearn'}), 'hybridkern.lab' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[] False"


@pytest.mark.parametrize("failing", [1, 2])
def test_a_full_disk_leaves_the_model_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    first, second = (flows.RealNVP(2, layers=2, hidden=width) for width in (4, 8))
    first.save(tmp_path)
    calls = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("hybridkern._saved.files.os.fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        second.save(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    x = torch.zeros(3, 2)
    assert torch.equal(hybridkern.load(tmp_path).log_prob(x), first.eval().log_prob(x))
