"""What the commands do: one file after the other, each decoded again before it is written."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hybridkern.codec import Codec
from hybridkern.lab.archive import DataError, one_line
from hybridkern.lab.compress import pictures, records, tiles
from hybridkern.lab.compress.models import codec_for, codec_that_made
from hybridkern.lab.compress.pictures import Pictures
from hybridkern.lab.recipes.errors import DamagedFileError, RecipeError
from hybridkern.lab.recipes.files import replacing, size_of

Say = Callable[[str], None]


@dataclass
class Sizes:
    """Bytes of a file, of its pixels as PNG and as lossless WebP (0: not asked for), and in the archive.

    ``webp`` is ``None`` where a side is longer than WebP allows.
    """

    name: str
    file: int
    png: int
    webp: int | None
    archive: int
    pixels: int


def compress(run: Path, paths: Sequence[Path], out: Path, *, integers: bool, compare: bool, say: Say) -> list[Sizes]:
    """Writes an archive of files; see the command of that name.

    Raises:
        RecipeError, DataError: an unusable run, file or name; nothing was written then.
    """
    found = _find(paths, say)
    if out.exists():
        raise RecipeError(f"--out: {out} exists already; choose another file")
    first = pictures.read(found[0][0])
    shape = None
    codec: Codec | None = None
    done: list[Sizes] = []
    with replacing(out, durable=True) as temporary, temporary.open("wb") as file:
        for path, name in found:
            images = first if path is found[0][0] else pictures.read(path)
            if codec is None:
                codec = codec_for(run, integers, _sample(images, run))
                shape = codec.shape
                file.write(records.MAGIC)
                head = {"run": str(run.resolve()), "fingerprint": codec.fingerprint.hex(), "integers": integers}
                records.write(file, records.HEADER, head | {"shape": shape})
            size = _add(file, name, images, codec)
            done.append(Sizes(name, images.size, *_compared(images, compare), size, images.pixels.size))
            dropped = f"; metadata dropped: {', '.join(images.dropped)}" if images.dropped else ""
            say(f"[{len(done)}/{len(found)}] {name}: {images.size} -> {size} bytes{dropped}")
        records.write(file, records.END, {"files": len(done)})
        if out.exists():
            raise RecipeError(f"--out: {out} exists already; choose another file")
    return done


def decompress(archive: Path, out: Path, *, run: Path | None, say: Say) -> list[Path]:
    """Writes the files of an archive into a folder; see the command of that name.

    Raises:
        RecipeError: an unusable archive, run or folder. What was written before is whole.
    """
    head, entries = describe(archive)
    names = [out / _safe(archive, entry["name"]) for entry in entries]
    if taken := [path for path in names if path.exists()]:
        raise RecipeError(f"--out: {taken[0]} exists already; choose another folder")
    codec = codec_that_made(run or Path(head["run"]), head["integers"], head["fingerprint"])
    written: list[Path] = []
    with archive.open("rb") as file:
        for record in _records(archive, file):
            if record.kind != records.ENTRY:
                continue
            at = len(written)
            if at == len(names) or record.description["name"] != entries[at]["name"]:
                raise DamagedFileError(f"{archive}: changed while it was read")
            path = names[at]
            images = _decoded(archive, record.description, record.payload, codec)
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                pictures.write(temporary, images)
                if path.exists():
                    raise RecipeError(f"--out: {path} exists already; choose another folder")
            written.append(path)
            say(f"[{len(written)}/{len(names)}] {path}")
    return written


def _records(archive: Path, file: BinaryIO) -> Iterator[records.Record]:
    try:
        yield from records.read(file, size_of(archive))
    except records.ArchiveError as error:  # it was whole when it was looked at
        raise DamagedFileError(f"{archive}: changed while it was read ({one_line(error)})") from error


def describe(archive: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Header of an archive and the descriptions of its files, every checksum looked at.

    Raises:
        DamagedFileError: it is damaged, truncated or of another kind.
    """
    size = size_of(archive)
    entries = []
    head: dict[str, Any] = {}
    try:
        with archive.open("rb") as file:
            for record in records.read(file, size):
                if record.kind == records.HEADER:
                    head = record.description
                elif record.kind == records.ENTRY:
                    entries.append(record.description | {"bytes": record.size})
                elif record.description.get("files") != len(entries):
                    raise records.ArchiveError("damaged: files are missing")
        known = {"run": str, "fingerprint": str, "integers": bool, "shape": list}
        if not all(isinstance(head.get(key), kind) for key, kind in known.items()):
            raise records.ArchiveError("damaged: a header that lacks something")
        for entry in entries:
            if not _is_sound(entry):
                raise records.ArchiveError("damaged: a description that lacks something")
    except (records.ArchiveError, OSError, MemoryError) as error:
        raise DamagedFileError(f"{archive}: {one_line(error)}") from error
    return head, entries


def _is_sound(entry: dict[str, Any]) -> bool:
    known = {"name": str, "kind": str, "size": list, "alpha": bool, "shape": list, "coded": int, "rest": int}
    if not all(isinstance(entry.get(key), kind) for key, kind in known.items()) or len(entry["size"]) != 4:
        return False
    numbers = [*entry["size"], *entry["shape"], entry["coded"], entry["rest"]]
    return all(type(n) is int and 0 <= n < 1 << 40 for n in numbers) and _is_picture(entry)


def _is_picture(entry: dict[str, Any]) -> bool:
    """Whether a file of its kind can hold images of this size: what :mod:`pictures` reads."""
    size, planes, alpha = entry["size"], entry["size"][3], entry["alpha"]
    if not all(size) or entry["rest"] > math.prod(size):
        return False
    if entry["kind"] == "npz":
        shapes = (size, size[:3]) if planes == 1 else (size,)
        return planes in (1, 3) and not alpha and entry["shape"] in shapes
    return entry["kind"] in ("png", "webp") and size[0] == 1 and planes <= 4 and alpha == (planes in (2, 4))


def _find(paths: Sequence[Path], say: Say) -> list[tuple[Path, str]]:
    """Files and the names they get in the archive."""
    found: dict[str, Path] = {}
    for path in paths:
        for one in _inside(path) if path.is_dir() else [path]:
            if path.is_dir() and not one.is_file():
                say(f"{one}: left out, {'a link to a folder' if one.is_dir() else 'no file'}")
                continue
            if one.suffix.lower() not in pictures.SUFFIXES:
                if not path.is_dir():
                    raise DataError(f"{one}: got the suffix {one.suffix!r}, expected .png, .webp or .npz")
                say(f"{one}: left out, no .png, .webp or .npz")
                continue
            name = str(one.relative_to(path)) if path.is_dir() else one.name
            if any("\ud800" <= character <= "\udfff" for character in name):  # bytes that Python could not read
                raise DataError(f"{os.fsencode(one)!r}: got a name of other bytes, expected UTF-8")
            if name in found:
                raise DataError(f"{one}: got the name {name} twice, expected one file of each name")
            found[name] = one
    if not found:
        raise DataError("PATHS: got no .png, .webp or .npz file")
    for name, one in found.items():
        for folder in map(str, Path(name).parents):
            if folder in found:  # which nothing could unpack
                raise DataError(f"{one}: got the name {name}, expected none inside of {folder}, the name of a file")
    return [(path, name) for name, path in found.items()]


def _inside(folder: Path) -> list[Path]:
    """Files of a folder and of those within, and links to folders, which may lead back to where they stand.

    Raises:
        DataError: a folder that cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error

    found = []
    for root, folders, files in os.walk(folder, onerror=refuse):
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        found += [Path(root, name) for name in (*files, *links)]
    return sorted(found)


def _sample(images: Pictures, run: Path) -> np.ndarray | None:
    from hybridkern.lab.compress.models import flow_of

    c, h, w = flow_of(run).shape
    try:
        return tiles.cut(images, (c, h, w))[0]
    except tiles.MismatchError:
        return None


def _add(file: BinaryIO, name: str, images: Pictures, codec: Codec) -> int:
    """Appends a file to the archive, once it has been decoded in memory to the same pixels."""
    try:
        cut, rest = tiles.cut(images, codec.shape)
    except tiles.MismatchError as error:
        raise DataError(f"{name}: {error}") from error
    coded = codec.encode(cut)
    others = _packed(images.others)
    description = {
        "name": name,
        "kind": images.kind,
        "size": images.pixels.shape,
        "alpha": images.has_alpha,
        "shape": images.shape,
        "coded": len(coded),
        "rest": len(rest),
    }
    payload = coded + zlib.compress(rest + others, 9)
    again = _decoded(Path(name), description, payload, codec)
    if not np.array_equal(again.pixels, images.pixels) or _packed(again.others) != others:
        raise RecipeError(f"{name}: does not decode to the same pixels on this machine; nothing was written")
    return records.write(file, records.ENTRY, description, payload)


def _decoded(path: Path, description: dict[str, Any], payload: bytes, codec: Codec) -> Pictures:
    n, h, w, c = description["size"]
    try:
        cut = codec.decode(payload[: description["coded"]]).numpy()
        most = None if description["kind"] == "npz" else description["rest"]  # beside other arrays, of any size
        rest, others = _inflated(payload[description["coded"] :], description["rest"], most)
        pixels = tiles.join(cut, rest, (n, h, w, c), description["alpha"], codec.shape)
        return Pictures(pixels, description["kind"], tuple(description["shape"]), _unpacked(others))
    except (ValueError, zlib.error, MemoryError) as error:
        raise DamagedFileError(f"{path}: {one_line(error)}") from error


def _inflated(data: bytes, count: int, most: int | None) -> tuple[bytes, bytes]:
    """The first ``count`` bytes, and the rest; ``most``: how many there may be, which are not even made."""
    stream = zlib.decompressobj()
    content = stream.decompress(data, 0 if most is None else most + 1)
    if not stream.eof or (most is not None and len(content) > most):
        raise ValueError("deflated bytes that end early, or are more than it declares")
    return content[:count], content[count:]


def _packed(arrays: dict[str, np.ndarray]) -> bytes:
    """Arrays as ``.npy`` bytes, each behind its name and length."""
    import io

    out = io.BytesIO()
    for name, array in sorted(arrays.items()):
        one = io.BytesIO()
        np.lib.format.write_array(one, array, allow_pickle=False)
        encoded = name.encode()
        out.write(len(encoded).to_bytes(4, "little") + encoded)
        out.write(len(one.getvalue()).to_bytes(8, "little") + one.getvalue())
    return out.getvalue()


def _unpacked(data: bytes) -> dict[str, np.ndarray]:
    import io

    arrays = {}
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        name = data[at + 4 : at + 4 + length].decode()
        at += 4 + length
        size = int.from_bytes(data[at : at + 8], "little")
        try:
            arrays[name] = np.lib.format.read_array(io.BytesIO(data[at + 8 : at + 8 + size]), allow_pickle=False)
        except Exception as error:  # what is no array can raise anything
            raise ValueError(f"an array that is none ({one_line(error)})") from error
        at += 8 + size
    return arrays


def _compared(images: Pictures, compare: bool) -> tuple[int, int | None]:
    if not compare:
        return 0, 0
    fits = max(images.pixels.shape[1:3]) <= pictures.LONGEST_WEBP
    png = sum(len(pictures.to_bytes(one, "png")) for one in images.pixels)
    return png, sum(len(pictures.to_bytes(one, "webp")) for one in images.pixels) if fits else None


def _safe(archive: Path, name: str) -> Path:
    """A name that stays within the folder."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise DamagedFileError(f"{archive}: holds the name {name!r}, expected one within a folder")
    return path


def summed(sizes: Sequence[Sizes], archive: Path) -> list[Sizes]:
    """What of the archive is of no file, its header and its end; and the sums of all, among them its whole size."""
    webp = [one.webp for one in sizes if one.webp is not None]
    columns = [[s.file, s.png, s.archive, s.pixels] for s in sizes]
    file, png, coded, values = (sum(column) for column in zip(*columns, strict=True))
    whole = size_of(archive)
    every = Sizes("all", file, png, sum(webp) if len(webp) == len(sizes) else None, whole, values)
    return [Sizes("header", 0, 0, 0, whole - coded, 0), every]
