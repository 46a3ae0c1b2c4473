"""Files that are either there as a whole or not at all, and one line for each that cannot be read or written."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from hybridkern._saved.seals import KEY, json_is_intact, seal_json
from hybridkern._temporary import beside, is_temporary
from hybridkern.lab.archive import one_line
from hybridkern.lab.recipes.errors import DamagedFileError, RecipeError

_LARGEST_JSON = 64 * 2**20
_TAIL = 128


@contextmanager
def replacing(path: Path, durable: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path``, of the same suffix, that takes its place when the block ends well.

    Args:
        path: of the file.
        durable: the file is on the disk before it takes the name, and the name before the block is left. So not even a
            power cut leaves half a file under the name.

    Raises:
        RecipeError: the file cannot be written; what was there before stays.
    """
    temporary = beside(path)
    try:
        yield temporary
        if durable:
            _sync(temporary)
        os.replace(temporary, path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        raise RecipeError(f"{path}: cannot write the file ({one_line(error)})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_durably(path: Path, content: bytes) -> None:
    """Writes a file so that it survives a power cut; errors as :func:`replacing`."""
    with replacing(path, durable=True) as temporary:
        temporary.write_bytes(content)


def sync_folder(folder: Path) -> None:
    """Brings the names in a folder to the disk, where its file system can."""
    with contextlib.suppress(OSError):
        _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files that killed processes left; only who holds the folder may do so."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if is_temporary(path):
                path.unlink()


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes ``values`` as indented JSON; NaN and infinity are an error, for they are no JSON."""
    with replacing(path, durable=True) as temporary:
        temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_sealed_json(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Writes ``values`` and their checksum as :func:`write_json` does; returns what is in the file."""
    content, written = seal_json(values)
    write_durably(path, content)
    return written


def read_file(path: Path, most: int | None = None, ends: Callable[[bytes], bool] | None = None) -> bytes:
    """The content of a file of at most ``most`` bytes.

    Args:
        path: of the file.
        most: the largest size; ``None``: any.
        ends: whether these last bytes of it are as they should be; asked before memory is taken for all of them.

    Raises:
        DamagedFileError: there is no such file, it is larger, or cannot be read.
    """
    size = size_of(path)
    if most is not None and size > most:
        raise DamagedFileError(f"{path}: damaged (got {size} bytes, expected at most {most})")
    try:
        if ends is not None and not ends(_last_bytes(path)):
            raise DamagedFileError(f"{path}: damaged (truncated, or another file)")
        return path.read_bytes()
    except MemoryError as error:
        raise DamagedFileError(f"{path}: damaged (it is larger than the memory)") from error
    except OSError as error:
        raise DamagedFileError(f"{path}: cannot be read ({one_line(error)})") from error


def size_of(path: Path) -> int:
    """Bytes of a file; raises DamagedFileError where there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise DamagedFileError(f"{path}: missing") from error
    except OSError as error:
        raise DamagedFileError(f"{path}: cannot be read ({one_line(error)})") from error
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
        raise DamagedFileError(f"{path}: is no file")
    return status.st_size


def _last_bytes(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        return file.read()


def read_json(path: Path) -> tuple[dict[str, Any], bool]:
    """The object in a JSON file, and whether it held its checksum, which is no part of the result.

    Raises:
        DamagedFileError: it cannot be read, holds no object, or is not what its checksum says.
    """
    content = read_file(path, _LARGEST_JSON)
    try:
        values = json.loads(content.decode(), parse_constant=_no_number)
    except RecursionError as error:
        raise DamagedFileError(f"{path}: damaged (nested too deeply)") from error
    except ValueError as error:
        raise DamagedFileError(f"{path}: damaged ({one_line(error)})") from error
    if not isinstance(values, dict):
        raise DamagedFileError(f"{path}: damaged (expected a JSON object)")
    sealed = KEY in values
    if sealed and not json_is_intact(content, values):
        raise DamagedFileError(f"{path}: damaged (its checksum is another)")
    values.pop(KEY, None)
    return values, sealed


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
