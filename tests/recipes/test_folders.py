"""Folders of runs: full disks, folders that cannot be written to, two processes, what killed ones leave, odd names."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hybridkern._temporary import is_temporary
from hybridkern.lab.recipes import cubic, files
from hybridkern.lab.recipes.callbacks import Last
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.files import replacing, write_durably
from hybridkern.lab.recipes.lock import locked
from tests.recipes.conftest import call, run

NAME = "cubic"
OPTIONS = ("--epochs", 2, "--set", "starts=1", "--threads", 1)


@pytest.fixture(autouse=True)
def one_picture(monkeypatch):
    """Drawing takes longer than all else here."""
    monkeypatch.setattr(cubic, "RECIPE", dataclasses.replace(cubic.RECIPE, draw=draw_nothing))


def draw_nothing(folder: Path, *_: object) -> list[Path]:
    with replacing(folder / "training.png") as path:
        path.write_bytes(b"a picture")
    return [folder / "training.png"]


def fault(error: str) -> str:
    (line,) = [line for line in error.splitlines() if line.startswith("hybridkern: ")]
    return line.removeprefix("hybridkern: ")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("folders") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Last, "seconds", 0.0)
        run(NAME, folder, epochs=2, starts=1)
    return folder


def same_weights(one: Path, other: Path) -> bool:
    weights = [load_file(folder / "model.safetensors") for folder in (one, other)]
    return all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@contextmanager
def full_disk(name: str) -> Iterator[None]:
    """A disk without room for files of one name; what is written there is cut in half."""
    original = os.replace

    def replace(source: Path, target: Path) -> None:
        if Path(target).name == name:
            os.truncate(source, os.path.getsize(source) // 2)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))
        original(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "replace", replace)
        yield


WRITTEN = ["config.json", "best.ckpt", "last.ckpt", "model.safetensors", "training.png", "metrics.json"]


@pytest.mark.parametrize("name", WRITTEN)
def test_full_disk_is_one_line_and_the_run_can_be_finished(tmp_path, monkeypatch, name):
    out = tmp_path / "run"
    monkeypatch.setattr(Last, "seconds", 0.0)
    with full_disk(name):
        error = call("train", NAME, *OPTIONS, "--set", "keep=best", "--out", out, code=1)
    path = out / "checkpoints" / name if name.endswith("ckpt") else out / name
    assert fault(error) == f"{path}: cannot write the file (No space left on device)"
    assert not list(out.rglob(".*")) and not (out / "metrics.json").exists()
    call("train", NAME, *OPTIONS, "--set", "keep=best", "--out", out, "--resume", code=0)
    call("evaluate", out, code=0)


def test_full_disk_keeps_what_was_there(tmp_path):
    path = tmp_path / "a"
    write_durably(path, b"first")
    with full_disk("a"), pytest.raises(RecipeError, match=r"a: cannot write the file \(No space left on device\)"):
        write_durably(path, b"second")
    assert path.read_bytes() == b"first" and list(tmp_path.iterdir()) == [path]


def test_real_disk_without_room(tmp_path):
    """Where a small file system can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        error = call("train", NAME, *OPTIONS, "--out", disk / "run", code=1)
        assert fault(error).endswith("cannot write the file (No space left on device)")
        assert not list(disk.rglob(".*"))
        out = shutil.copytree(disk / "run", tmp_path / "run")
    finally:
        subprocess.run(["umount", disk], check=True)
    call("train", NAME, *OPTIONS, "--out", out, "--resume", code=0)


@pytest.mark.parametrize("command", ["sample", "train", "resume"])
def test_read_only_folder(tmp_path, whole, monkeypatch, command):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    out = Path(shutil.copytree(whole, tmp_path / "run")) if command != "train" else tmp_path / "run"
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(files.os, "replace", refuse)
    if command == "sample":
        assert fault(call("sample", out, code=1)) == f"{out}/sampled.png: cannot write the file (Read-only file system)"
        return
    more = ["--resume"] if command == "resume" else []
    error = fault(call("train", NAME, *OPTIONS, "--out", out, *more, code=1))
    assert error == f"--out: cannot write to {out} (Read-only file system)"


def test_evaluation_writes_nothing(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    call("evaluate", whole, code=0)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_second_process_gets_one_line(tmp_path, whole):
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    before = sorted(out.rglob("*"))
    with locked(out):
        error = fault(call("train", NAME, *OPTIONS, "--out", out, "--resume", code=1))
        assert error == f"{out}: another process is at work in this folder"
        (tmp_path / "new").mkdir()
        with locked(tmp_path / "new"):
            assert "another process is at work" in call("train", NAME, *OPTIONS, "--out", tmp_path / "new", code=1)
        call("evaluate", out, code=0)
        call("sample", out, "--out", tmp_path / "s.npz", code=0)
    assert sorted(out.rglob("*")) == before
    call("train", NAME, *OPTIONS, "--out", out, "--resume", code=0)


HOLD = """
import sys, time
from pathlib import Path
from hybridkern.lab.recipes.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_of_a_dead_process_is_taken_over(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(RecipeError, match="another process is at work"), locked(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait(timeout=30)
    finally:
        holder.kill()
        holder.communicate()
    with locked(tmp_path):
        assert list(tmp_path.iterdir()) == []


BEGUN = {
    "nothing": [],
    "checkpoints": ["checkpoints/"],
    "half a config.json": ["checkpoints/", ".config.123.tmp.json"],
    "half a checkpoint": ["checkpoints/", "checkpoints/.best.1.tmp.ckpt", "checkpoints/.last.1.tmp.old"],
}


@pytest.mark.parametrize("resume", [[], ["--resume"]])
@pytest.mark.parametrize("names", BEGUN.values(), ids=BEGUN.keys())
def test_run_killed_before_it_wrote_anything_begins_again(tmp_path, whole, names, resume):
    out = tmp_path / "run"
    out.mkdir()
    for name in names:
        (out / name).mkdir() if name.endswith("/") else (out / name).write_bytes(b"half")
    call("train", NAME, *OPTIONS, "--out", out, *resume, code=0)
    assert not list(out.rglob(".*"))
    assert same_weights(whole, out)


def test_leftovers_of_killed_runs_go_at_the_next_start(tmp_path, whole):
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    kept = [out / name for name in (".note", ".config.json", "a.12.tmp", "checkpoints/.keep")]
    gone = [out / name for name in (".metrics.7.tmp.json", ".real.8.tmp.png", "checkpoints/.last.99999.tmp.ckpt")]
    for path in kept + gone:
        path.touch()
    call("train", NAME, *OPTIONS, "--out", out, "--resume", code=0)
    assert all(path.exists() for path in kept) and not any(path.exists() for path in gone)


def test_lost_second_rename_leaves_a_run_that_goes_on(tmp_path, whole):
    """Death between the two names that a checkpoint takes leaves the one before it."""
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    for name in ("metrics.json", "model.safetensors", "checkpoints/last.ckpt"):
        (out / name).unlink()
    assert "last.ckpt: missing; going on from last.previous.ckpt" in call(
        "train", NAME, *OPTIONS, "--out", out, "--resume", code=0
    )
    assert same_weights(whole, out)


@pytest.mark.parametrize("name", ["ü ñ", "new\nline", "-o", "[red]markup[/red]"])
def test_odd_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    call("train", NAME, *OPTIONS, f"--out={name}", code=0)
    (Path(name) / "config.json").write_text("{")
    error = call("evaluate", "--", name, code=1)
    assert error.count("\n") == 1 and error.startswith("hybridkern: " + name.replace("\n", "\\n") + "/config.json: ")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.touch(), "exists and is no run folder"),
        (lambda path: (path.mkdir(), (path / "note").touch()), "exists and is no run folder"),
        (lambda path: (path.mkdir(), (path / "checkpoints").touch()), "exists and is no run folder"),
        (
            lambda path: ((path / "checkpoints").mkdir(parents=True), (path / "checkpoints/a").touch()),
            "is no run folder",
        ),
        (lambda path: path.symlink_to("nowhere/at/all"), "cannot write to"),
        (lambda path: path.symlink_to(path), "cannot write to"),
        (os.mkfifo, "exists and is no run folder"),
    ],
)
@pytest.mark.parametrize("command", ["new", "resume"])
def test_what_is_no_run_folder_is_left_alone(tmp_path, make, message, command):
    out = tmp_path / "run"
    make(out)
    before = sorted(tmp_path.rglob("*"))
    error = fault(call("train", NAME, *OPTIONS, "--out", out, *(["--resume"] if command == "resume" else []), code=1))
    assert message in error if command == "new" else "holds no run to go on with" in error
    assert sorted(tmp_path.rglob("*")) == before


def test_links_to_folders_are_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    call("train", NAME, *OPTIONS, "--out", tmp_path / "link", code=0)
    assert (tmp_path / "real/metrics.json").exists() and (tmp_path / "link").is_symlink()


def test_too_long_a_name_is_one_line(tmp_path):
    error = fault(call("train", NAME, *OPTIONS, "--out", tmp_path / ("x" * 300), code=1))
    assert error.endswith("(File name too long)")


def test_file_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    """And the name before the next step is taken."""
    done: list[tuple[str, str]] = []
    original_sync, original_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        done.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        original_sync(descriptor)

    def replace(source: Path, target: Path) -> None:
        done.append(("replace", str(source)))
        original_replace(source, target)

    monkeypatch.setattr(files.os, "fsync", sync)
    monkeypatch.setattr(files.os, "replace", replace)
    write_durably(tmp_path / "a", b"content")
    temporary = done[0][1]
    assert is_temporary(Path(temporary)) and Path(temporary).parent == tmp_path
    assert done == [("sync", temporary), ("replace", temporary), ("sync", str(tmp_path))]
    done.clear()
    with replacing(tmp_path / "picture") as path:
        path.touch()
    assert [what for what, _ in done] == ["replace"]


def test_figures_in_a_file_are_those_of_the_run(whole):
    stored = json.loads((whole / "metrics.json").read_text())
    assert stored["checksum"].startswith("sha256:") and list(stored)[-1] == "checksum"
