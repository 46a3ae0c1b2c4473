"""The commands ``compress``, ``decompress`` and ``inspect`` on files of all kinds."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridkern import codec
from hybridkern.lab.compress import pictures, records, tiles, workflow
from hybridkern.lab.compress.pictures import Pictures
from tests.codec import cases
from tests.compress.made import call, picture


def same(before: Path, after: Path) -> None:
    names = sorted(p.relative_to(before) for p in before.rglob("*") if p.is_file() and p.suffix != ".txt")
    assert names == sorted(p.relative_to(after) for p in after.rglob("*") if p.is_file())
    for name in names:
        one, other = pictures.read(before / name), pictures.read(after / name)
        assert np.array_equal(one.pixels, other.pixels) and one.kind == other.kind and one.shape == other.shape
        assert one.others.keys() == other.others.keys()
        assert all(np.array_equal(one.others[key], other.others[key]) for key in one.others)


@pytest.mark.parametrize("options", [(), ("--float64", "--no-compare")], ids=["integers", "float64"])
def test_files_come_back(run: Path, folder: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    archive = tmp_path / "all.hk"
    said = call("compress", run, folder, "-o", archive, *options)
    assert "many.npz" in said and "notes.txt: left out" in said and ("PNG" in said)
    rows = {line.split("│")[1].strip(): line.split("│")[5:7] for line in said.splitlines() if line.startswith("│")}
    bytes_of = {name: int(row[0]) for name, row in rows.items()}
    assert bytes_of.pop("all") == archive.stat().st_size == sum(bytes_of.values())
    assert rows["header"][1].strip() == ""
    assert "deeper/LA.png" in call("inspect", archive)
    call("decompress", archive, "-o", tmp_path / "again")
    same(folder, tmp_path / "again")
    assert "exists already" in call("decompress", archive, "-o", tmp_path / "again", code=1)
    before = archive.read_bytes()
    assert "exists already" in call("compress", run, folder, "-o", archive, code=1)
    assert archive.read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp*"))


def test_other_models_and_damage(run: Path, folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "one.hk"
    call("compress", run, folder / "one.webp", "-o", archive)
    other = tmp_path / "other"
    shutil.copytree(run, other)
    for path in other.glob("codec-*.npz"):
        path.unlink()
    codec.save(codec.quantize(cases.flow(), cases.images(0, 5)), other / "codec-other.npz")
    assert "fingerprint" in call("decompress", archive, "-o", tmp_path / "x", "--run", other, code=1)
    content = archive.read_bytes()
    rng = np.random.default_rng(0)
    for i in range(20):
        damaged = bytearray(content)
        damaged[rng.integers(0, len(content))] ^= 1 << rng.integers(0, 8)
        broken = tmp_path / f"broken{i}.hk"
        broken.write_bytes(damaged if i % 2 else content[: rng.integers(0, len(content))])
        for command in (("inspect", broken), ("decompress", broken, "-o", tmp_path / "y")):
            assert str(broken) in call(*command, code=1).replace("\n", "")
    assert not (tmp_path / "y").exists()


def test_a_name_cannot_leave_the_folder(run: Path, folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "one.hk"
    call("compress", run, folder / "one.webp", "-o", archive)
    found = list(records.read(io.BytesIO(archive.read_bytes()), archive.stat().st_size))
    with (tmp_path / "evil.hk").open("wb") as file:
        file.write(records.MAGIC)
        for record in found:
            moved = {"name": "../../evil.webp"} if record.kind == records.ENTRY else {}
            records.write(file, record.kind, record.description | moved, record.payload)
    assert "within a folder" in call("decompress", tmp_path / "evil.hk", "-o", tmp_path / "out", code=1)


def _array(header: bytes) -> bytes:
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    return (1).to_bytes(4, "little") + b"a" + len(content).to_bytes(8, "little") + content


# What is other in the description of a file, and what is deflated behind its tiles; or nothing.
MADE_BY_HAND: dict[str, tuple[str, dict[str, Any], bytes | None]] = {
    "five planes": ("one.webp", {"size": [1, 12, 11, 5]}, None),
    "no image": ("one.webp", {"size": [0, 12, 11, 3]}, None),
    "two images": ("one.webp", {"size": [2, 6, 11, 3]}, None),
    "alpha of none": ("one.webp", {"alpha": True}, None),
    "shape of no number": ("many.npz", {"shape": [True, 9, 8]}, None),
    "another shape": ("many.npz", {"shape": [5, 8, 9]}, None),
    "four planes": ("many.npz", {"size": [5, 9, 2, 4], "shape": [5, 9, 2, 4]}, None),
    "more than declared": ("one.webp", {}, bytes(10**6)),
    "less than declared": ("one.webp", {"rest": 390}, b""),
    "header of brackets": ("many.npz", {}, _array(b"(" * 9000)),
    "header of signs": ("many.npz", {}, _array(b"-" * 9000 + b"1")),
    "header of a list": ("many.npz", {}, _array(b"{[1]: 2}")),
}


@pytest.mark.parametrize("what", MADE_BY_HAND)
def test_archives_made_by_hand_are_refused_by_name(run: Path, folder: Path, tmp_path: Path, what: str) -> None:
    name, changes, behind = MADE_BY_HAND[what]
    archive, made = tmp_path / "one.hk", tmp_path / "made.hk"
    call("compress", run, folder / name, "-o", archive, "--no-compare")
    with made.open("wb") as file:
        file.write(records.MAGIC)
        for record in records.read(io.BytesIO(archive.read_bytes()), archive.stat().st_size):
            payload, own = record.payload, changes if record.kind == records.ENTRY else {}
            if record.kind == records.ENTRY and behind is not None:
                coded, rest = record.description["coded"], record.description["rest"]
                before = zlib.decompress(payload[coded:])[:rest] if behind else b""
                payload = payload[:coded] + zlib.compress(before + behind)
            records.write(file, record.kind, record.description | own, payload)
    assert "made.hk: " in call("decompress", made, "-o", tmp_path / "out", code=1).replace("\n", "")
    assert not (tmp_path / "out").exists()


ODD = ("[/red].png", "a[bold]b.png", ":smile:.png", "two\nlines.png", "x" * 251 + ".png")


def test_odd_names_come_back_and_are_shown(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    (tmp_path / "pictures" / "[").mkdir(parents=True)
    for name in ODD:
        picture("L", 8, 8).save(tmp_path / "pictures" / name)
    archive = tmp_path / "[" / "x]" / "a.hk"  # "[/x]" closes a markup
    archive.parent.mkdir(parents=True)
    said = call("compress", run, tmp_path / "pictures", "-o", archive, "--no-compare") + call("inspect", archive)
    for name in ODD:
        assert said.count(f" {name} ".replace("\n", "\\n")) == 2, name
    call("decompress", archive, "-o", tmp_path / "again")
    same(tmp_path / "pictures", tmp_path / "again")


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes there alone")
def test_a_run_and_an_archive_with_names_of_other_bytes(run: Path, tmp_path: Path) -> None:
    other = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(run, other)
    picture("L", 8, 8).save(tmp_path / "x.png")
    call("compress", other, tmp_path / "x.png", "-o", other / os.fsdecode(b"\xe9.hk"))
    assert "udce9" in call("inspect", other / os.fsdecode(b"\xe9.hk"))
    call("decompress", other / os.fsdecode(b"\xe9.hk"), "-o", tmp_path / "again")
    assert (tmp_path / "again" / "x.png").exists()


def test_a_picture_too_long_for_webp(run: Path, tmp_path: Path) -> None:
    picture("L", 1, pictures.LONGEST_WEBP + 1).save(tmp_path / "x.png")
    assert "too long for it" in call("compress", run, tmp_path / "x.png", "-o", tmp_path / "x.hk")
    call("decompress", tmp_path / "x.hk", "-o", tmp_path / "again")
    assert np.array_equal(pictures.read(tmp_path / "again" / "x.png").pixels, pictures.read(tmp_path / "x.png").pixels)


def test_an_archive_that_changes_is_no_other_file(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png"):
        picture("L", 8, 8).save(tmp_path / name)
        call("compress", run, tmp_path / name, "-o", tmp_path / f"{name}.hk", "--no-compare")
    seen = workflow.describe(tmp_path / "b.png.hk")
    monkeypatch.setattr(workflow, "describe", lambda path: seen)  # as it was before it became another
    said = call("decompress", tmp_path / "a.png.hk", "-o", tmp_path / "again", code=1)
    assert "changed while it was read" in said and not list((tmp_path / "again").glob("*.png"))
    (tmp_path / "a.png.hk").write_bytes((tmp_path / "b.png.hk").read_bytes()[:-9])
    assert "changed while it was read (truncated)" in call(
        "decompress", tmp_path / "a.png.hk", "-o", tmp_path / "again", code=1
    )


def test_what_could_not_be_unpacked_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "x.png").mkdir(parents=True)
    for path in (tmp_path / "x.png", tmp_path / "in" / "x.png" / "y.png"):
        picture("L", 8, 8).save(path)
    said = call("compress", run, tmp_path / "in", tmp_path / "x.png", "-o", tmp_path / "x.hk", code=1)
    assert "expected none inside of x.png" in said
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for name in ("images.npy", "a.npy", "a"):
            with archive.open(name, "w") as file:
                np.lib.format.write_array(file, np.ones((1, 8, 8), np.uint8))
    assert "a: got two arrays" in call("compress", run, tmp_path / "x.npz", "-o", tmp_path / "x.hk", code=1)


def test_what_a_folder_leaves_out_is_named(run: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "link").symlink_to(folder / "deeper")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    said = call("compress", run, folder, "-o", tmp_path / "x.hk", "--no-compare")
    assert "link: left out, a link to a folder" in said and "gone.png: left out, no file" in said


def test_a_folder_that_cannot_be_read(run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(path: str | Path, real: Any = os.scandir) -> Any:
        if Path(path).name == "deeper":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr("os.scandir", scandir)
    said = call("compress", run, folder, "-o", tmp_path / "x.hk", code=1)
    assert "deeper: cannot be read (Permission denied)" in said and not (tmp_path / "x.hk").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes there alone")
def test_a_name_of_other_bytes(run: Path, tmp_path: Path) -> None:
    inside = tmp_path / "names"
    inside.mkdir()
    picture("L", 8, 8).save(inside / os.fsdecode(b"caf\xe9.png"))
    assert "expected UTF-8" in call("compress", run, inside, "-o", tmp_path / "x.hk", code=1)


def test_arrays_of_any_name_come_back(tmp_path: Path) -> None:
    others = {name: np.arange(3) for name in ("file", "allow_pickle", "a/b")}
    images = np.ones((2, 4, 4), np.uint8)
    pictures.write(tmp_path / "x.npz", Pictures(images[..., None], "npz", images.shape, others))
    found = pictures.read(tmp_path / "x.npz")
    assert found.shape == images.shape and found.others.keys() == others.keys()


def test_a_run_of_vectors_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "vectors"
    call("train", "digits", "--epochs", 1, "--out", out, "--set", "hidden=8", "--set", "head_hidden=8")
    picture("L", 8, 8).save(tmp_path / "x.png")
    assert "no integer flow on images" in call("compress", out, tmp_path / "x.png", "-o", tmp_path / "x.hk", code=1)


@pytest.mark.parametrize("kind", ["png", "npz"])
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 6), (3, 50, 50)])
def test_tiles(shape: tuple[int, int, int], kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 13, 18, 3 if kind == "npz" else 4), dtype=np.uint8)
    images = Pictures(pixels, kind)
    cut, rest = tiles.cut(images, shape)
    assert cut.size + len(rest) == pixels.size
    assert np.array_equal(tiles.join(cut, rest, pixels.shape, images.has_alpha, shape), pixels)
    if cut.size and shape[0] == 3:
        assert np.array_equal(cut[0], pixels[0, : shape[1], : shape[2], :3].transpose(2, 0, 1))
    if cut.size and shape[1] != shape[2]:
        with pytest.raises(ValueError, match="tiles of shape"):
            tiles.join(cut.swapaxes(2, 3), rest, pixels.shape, images.has_alpha, shape)
    with pytest.raises(tiles.MismatchError):
        tiles.cut(Pictures(pixels[..., :1], "png"), (3, 4, 4))
