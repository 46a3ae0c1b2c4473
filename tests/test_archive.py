"""Packed data: only what is asked for is read, and no declared size is believed."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hybridkern.lab.archive import FREE, DataError, array_names, read_arrays
from hybridkern.lab.data import load_npz

RNG = np.random.default_rng(0)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def header(shape: object, dtype: str = "|u1", text: str | None = None, version: bytes = b"\1\0") -> bytes:
    text = text or repr({"descr": dtype, "fortran_order": False, "shape": shape})
    padded = text.encode() + b" " * (64 - (len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\1\0" else "<I", len(padded)) + padded


def archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def patched(path: Path, *changes: tuple[bytes, bytes]) -> Path:
    content = path.read_bytes()
    for old, new in changes:
        assert old in content
        content = content.replace(old, new)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "array",
    [
        RNG.integers(0, 255, (5, 4, 3)).astype(np.uint8),
        np.asfortranarray(RNG.random((5, 4, 3))),
        RNG.random((3, 2)).astype(">f4"),
        np.zeros((0, 8, 8), np.uint8),
        np.array(3, np.int64),
        np.array(["a", "bc"]),
        np.array([True, False]),
        np.array([1, 2], "M8[s]"),
        np.arange(3) * 1j,
        RNG.random(4).astype(np.float16),
    ],
    ids=lambda array: f"{array.dtype}",
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_as_numpy_reads_them(tmp_path, array, save):
    save(tmp_path / "a.npz", a=array, b=RNG.random(3))
    found = read_arrays(tmp_path / "a.npz", ["a", "c"])
    assert list(found) == ["a"] and array_names(tmp_path / "a.npz") == ["a", "b"]
    assert found["a"].dtype == array.dtype and found["a"].shape == array.shape
    assert np.array_equal(found["a"], array) and found["a"].flags.writeable


def test_what_was_not_asked_for_is_not_read(tmp_path):
    labels = np.arange(40) % 2
    images = RNG.integers(0, 9, (40, 4, 4)).astype(np.uint8)
    members = {"images.npy": npy(images), "labels.npy": npy(labels), "more.npy": b"no array", "note.txt": b""}
    path = archive(tmp_path / "a.npz", members)
    assert len(load_npz(path).train) > 0
    with pytest.raises(DataError, match=r"a\.npz: damaged \.npz file"):
        read_arrays(path, ["more"])


def bomb(path: Path, size: int) -> None:
    """Zeros that take a thousandth of their size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file, file.open("a.npy", "w") as member:
        member.write(header((size,)))
        for _ in range(size // 2**20):
            member.write(bytes(2**20))


def lying(path: Path) -> None:
    """An archive whose directory says less than there is."""
    archive(path, {"a.npy": npy(np.zeros(10**6, np.uint8))}, zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\1\2") + 24
    content[at : at + 4] = (len(header((1000,))) + 1000).to_bytes(4, "little")
    path.write_bytes(content)


LARGE = (1 << 40, 8, 8)
UNUSABLE: list[tuple[str, Callable[[Path], object], str]] = [
    ("64 TiB", lambda p: archive(p, {"a.npy": header(LARGE)}), "declares 70368744177664 bytes"),
    ("64 TiB and some data", lambda p: archive(p, {"a.npy": header(LARGE) + bytes(99)}), "the file holds 99"),
    ("2^64 wraps to 0", lambda p: archive(p, {"a.npy": header((2**32, 2**32))}), "declares 18446744073709551616 bytes"),
    (
        "2^64 of 8 bytes",
        lambda p: archive(p, {"a.npy": header((2**61,), "<f8")}),
        "declares 18446744073709551616 bytes",
    ),
    ("zip bomb", lambda p: bomb(p, 2 * FREE), "more than .* bytes in the file can hold"),
    ("less than there is", lying, "CRC"),
    ("negative", lambda p: archive(p, {"a.npy": header((-1,))}), "got shape"),
    ("two negative", lambda p: archive(p, {"a.npy": header((-2, -2)) + bytes(4)}), "got shape"),
    ("nothing by everything", lambda p: archive(p, {"a.npy": header((0, 10**30))}), "damaged"),
    ("no size", lambda p: archive(p, {"a.npy": header((10**15,), "<U0")}), "cannot be loaded"),
    ("objects", lambda p: np.savez(p, a=np.array([{}], object)), "Object arrays cannot be loaded"),
    ("structures", lambda p: np.savez(p, a=np.zeros(2, "i4,O")), "Object arrays cannot be loaded"),
    ("no header", lambda p: archive(p, {"a.npy": b"\x93NUMPY"}), "damaged"),
    ("no such version", lambda p: archive(p, {"a.npy": header((1,), version=b"\7\0")}), "damaged"),
    ("nested header", lambda p: archive(p, {"a.npy": header(0, text="(" * 5000)}), "damaged"),
    ("long header", lambda p: archive(p, {"a.npy": header((1,) * 9000)}), "damaged"),
    ("code in the header", lambda p: archive(p, {"a.npy": header(0, text="__import__('os')._exit(3)")}), "damaged"),
    ("empty member", lambda p: archive(p, {"a.npy": b""}), "damaged"),
    ("other data", lambda p: archive(p, {"a.npy": b"x" * 500}), "damaged"),
    ("changed data", lambda p: patched(archive(p, {"a.npy": npy(np.arange(99))}), (b"\x42\0\0", b"\x43\0\0")), "CRC"),
    (
        "encrypted",
        lambda p: patched(
            archive(p, {"a.npy": npy(np.arange(9))}), (b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0")
        ),
        "damaged",
    ),
    ("empty", lambda p: p.write_bytes(b""), "not an .npz file, or a truncated one"),
    ("text", lambda p: p.write_bytes(b"images"), "not an .npz file, or a truncated one"),
    ("missing", lambda p: None, "no such file"),
    ("folder", lambda p: p.mkdir(), "is no file"),
]


@pytest.mark.parametrize(("write", "fault"), [case[1:] for case in UNUSABLE], ids=[case[0] for case in UNUSABLE])
def test_unusable_archives_take_one_line_and_no_memory(tmp_path, write, fault):
    path = tmp_path / "a.npz"
    write(path)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=fault) as caught:
            read_arrays(path, ["a"])
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_pipe_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(DataError, match="is no file"):
        read_arrays(tmp_path / "a.npz", ["a"])


def test_sparse_data_may_pack_well(tmp_path):
    """Below the free size nothing is refused, however small the file is."""
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(2**22, np.uint8))
    assert (tmp_path / "a.npz").stat().st_size < 2**13
    assert read_arrays(tmp_path / "a.npz", ["a"])["a"].shape == (2**22,)


def test_a_damaged_directory_hides_no_array(tmp_path: Path) -> None:
    """One flipped bit in the name of ``split``, or in the length of a comment, and the file was one without a split."""
    path = tmp_path / "data.npz"
    np.savez_compressed(path, images=np.zeros((2, 2, 2), np.uint8), labels=np.arange(2), split=np.arange(2))
    content, names = path.read_bytes(), array_names(path)
    start = content.index(b"PK\1\2")
    for place in range(start, len(content)):
        for bit in range(8):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            try:
                found = array_names(path)
            except DataError:
                continue
            assert found == names, (place, bit)


def test_comments_and_foreign_members_do_no_harm(tmp_path: Path) -> None:
    path = archive(tmp_path / "data.npz", {"a.npy": npy(np.arange(3)), "notes.txt": b"x"})
    with zipfile.ZipFile(path, "a") as file:
        file.comment = b"made by hand"
    assert array_names(path) == ["a", "notes.txt"] and read_arrays(path, ["a"])["a"].tolist() == [0, 1, 2]
