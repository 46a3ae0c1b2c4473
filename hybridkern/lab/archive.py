"""Arrays of ``.npz`` files, and declared sizes, which are held against the file before memory is taken.

A few bytes can declare any size, and a megabyte of deflated zeros is a gigabyte. So an array may take
:data:`FREE` bytes whatever the file says, and beyond that :data:`RATIO` times what it takes in the file: real data
pack less than that.
"""

from __future__ import annotations

import math
import os
import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

FREE = 64 * 2**20
RATIO = 100
_SUFFIX = ".npy"
_BLOCK = 2**20
_END = b"PK\x05\x06"  # of the directory of an archive, before at most 65535 bytes of a comment
_END_SIZE = 2**16 + 22


class DataError(ValueError):
    """A data file that cannot be used; the message is one line for the user."""


def require_plausible(path: Path, what: str, size: int, packed: int) -> None:
    """Raises DataError where ``size`` bytes cannot come of ``packed`` ones."""
    if size > max(FREE, RATIO * packed):
        raise DataError(f"{path}: {what}: declares {size} bytes, more than {packed} bytes in the file can hold")


def size_of(path: Path) -> int:
    """Bytes of a file; raises DataError where there is none or it cannot be read."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
            raise DataError(f"{path}: is no file")
        with open(path, "rb"):
            return status.st_size
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)})") from error


def array_names(path: Path) -> list[str]:
    """The names of the arrays in an ``.npz`` file; raises DataError where it is missing or damaged."""
    with _opened(path) as archive:
        return [name.removesuffix(_SUFFIX) for name in archive.namelist()]


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Those of the named arrays that an ``.npz`` file holds; nothing else of the file is read.

    Raises:
        DataError: the file is missing or damaged, or an array is no plain one or larger than the file can hold.
    """
    with _opened(path) as archive:
        present = set(archive.namelist())
        found = {name: next((key for key in (name + _SUFFIX, name) if key in present), None) for name in names}
        return {name: _read(path, archive, name, key) for name, key in found.items() if key is not None}


def _opened(path: Path) -> zipfile.ZipFile:
    size_of(path)
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # a damaged file can raise anything
        raise DataError(f"{path}: not an .npz file, or a truncated one") from error
    try:
        _require_names(path, archive)
    except Exception as error:
        archive.close()
        raise DataError(f"{path}: damaged .npz file ({one_line(error)})") from error
    return archive


def _require_names(path: Path, archive: zipfile.ZipFile) -> None:
    """An array that a damaged directory does not list, or by another name, must not be taken for none.

    Every name stands twice in an archive, and the number of names at its end.

    Raises:
        zipfile.BadZipFile: two of them differ.
    """
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - _END_SIZE))
        end = file.read()
    at = end.rfind(_END)
    count = int.from_bytes(end[at + 10 : at + 12], "little")
    if at >= 0 and count not in (len(archive.infolist()), 0xFFFF):  # the last: it stands elsewhere
        raise zipfile.BadZipFile(f"{len(archive.infolist())} names of {count}")
    for info in archive.infolist():
        try:
            archive.open(info).close()  # compares the two
        except (NotImplementedError, RuntimeError):  # packed in another way, or encrypted: an error where it is read
            continue


def _read(path: Path, archive: zipfile.ZipFile, name: str, key: str) -> np.ndarray:
    info = archive.getinfo(key)
    try:
        with archive.open(info) as member:
            return _array(path, name, info, member)
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{path}: {name}: not enough memory for {info.file_size} bytes") from error
    except Exception as error:  # a damaged file can raise anything
        raise DataError(f"{path}: damaged .npz file ({one_line(error)})") from error


def _array(path: Path, name: str, info: zipfile.ZipInfo, member: Any) -> np.ndarray:
    shape, in_columns, dtype = _header(member)
    if dtype.hasobject or dtype.kind == "V" or not dtype.itemsize:
        raise ValueError(f"Object arrays cannot be loaded: {name} holds {dtype}")
    size = math.prod(shape) * dtype.itemsize  # Python's integers do not wrap
    head = member.tell()
    if size != info.file_size - head:
        rest = max(info.file_size - head, 0)
        raise DataError(f"{path}: {name}: declares {size} bytes in shape {_short(shape)}, the file holds {rest}")
    require_plausible(path, name, size, min(info.compress_size, os.path.getsize(path)))
    content = np.empty(size, np.uint8)
    done = 0
    while done < size:
        count = member.readinto(content[done : done + _BLOCK].data)
        if not count:
            raise EOFError(f"{name} ends after {done} of {size} bytes")
        done += count
    if member.read(1):  # at the end, the checksum is looked at
        raise ValueError(f"{name} goes on after {size} bytes")
    values = content.view(dtype)
    return values.reshape(shape[::-1]).T if in_columns else values.reshape(shape)


def _header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of the .npy format is not known")
    shape, in_columns, dtype = readers[version](member)
    if any(size < 0 for size in shape):
        raise ValueError(f"got shape {_short(shape)}")
    return shape, in_columns, dtype


def _short(shape: tuple[int, ...]) -> str:
    text = str(shape)
    return text if len(text) < 100 else f"{text[:100]}..."


def listed(names: Iterable[str]) -> str:
    """The keys of a file, for an error."""
    shown = [repr(name) for name in names]
    return ", ".join(shown[:20] + (["..."] if len(shown) > 20 else [])) or "none"


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks, or what kind of error it is."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 300 else f"{text[:300]}..."
