"""A checksum inside each file of a run: the SHA-256 of the file, taken with the checksum's own 64 digits as zeros.

It lies where each format has room for it, so that the files stay what they are for every other program: in JSON as the
last member, in safetensors as metadata, in a checkpoint (a ZIP archive) as the comment of the archive. A file and its
checksum so arrive in one rename, and none of them can be there without the other.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from torch import Tensor

KEY = "checksum"
_PREFIX = b"sha256:"
_DIGITS = 64
_BLANK = _PREFIX + b"0" * _DIGITS
_WRITTEN = re.compile(rb"sha256:[0-9a-f]{64}")
_ARCHIVE_END = b"PK\x05\x06"  # of 22 bytes, the last two of which are the length of a comment
_ARCHIVE_END_SIZE = 22


def seal_json(values: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """The file of a JSON object, and the object that is in it, with its checksum; NaN and infinity are an error."""
    text = json.dumps({**values, KEY: _BLANK.decode()}, indent=2, allow_nan=False) + "\n"
    content = _sealed(text.encode(), text.encode().rindex(_BLANK))
    return content, json.loads(content)


def seal_tensors(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """The safetensors file of these tensors, with further ``metadata``."""
    from safetensors.torch import save

    content: bytes = save(tensors, metadata={**(metadata or {}), KEY: _BLANK.decode()})
    return _sealed(content, content.index(_BLANK))


def seal_archive(content: bytes) -> bytes:
    """A ZIP archive without a comment, with its checksum as one.

    Raises:
        ValueError: it is no such archive, or a truncated one.
    """
    if not ends_as_archive(content):
        raise ValueError("not a ZIP archive without a comment, or a truncated one")
    commented = content[:-2] + len(_BLANK).to_bytes(2, "little") + _BLANK
    return _sealed(commented, len(commented) - len(_BLANK))


def ends_as_archive(content: bytes) -> bool:
    """Whether this is the content of a ZIP archive up to its end, without a comment."""
    end = content[-_ARCHIVE_END_SIZE:]
    return len(end) == _ARCHIVE_END_SIZE and end.startswith(_ARCHIVE_END) and end.endswith(b"\0\0")


def ends_as_checkpoint(content: bytes) -> bool:
    """Whether this is the end of a checkpoint, with its checksum or without."""
    at = len(content) - len(_BLANK)
    return ends_as_archive(content) or _WRITTEN.fullmatch(content, max(at, 0)) is not None


def tensors_end(head: bytes) -> int | None:
    """The size of a safetensors file as its header ``head`` says; ``None`` where that is no whole header."""
    size = int.from_bytes(head[:8], "little")
    try:
        entries = json.loads(head[8 : 8 + size])
        end: int = 8 + size + max(entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__")
        return end
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return None


def json_is_intact(content: bytes, values: dict[str, Any]) -> bool:
    """Whether the checksum in ``values``, which were read from ``content``, is that of ``content``."""
    written = str(values[KEY]).encode()
    return _is_intact(content, content.rfind(written), written)


def tensors_are_intact(content: bytes) -> bool | None:
    """Whether the checksum in a safetensors file is right; ``None`` where the file holds none."""
    found = re.search(rb'"%s":"(sha256:[^"]*)"' % KEY.encode(), content[: 8 + int.from_bytes(content[:8], "little")])
    return None if found is None else _is_intact(content, found.start(1), found.group(1))


def archive_is_intact(content: bytes) -> bool | None:
    """Whether the checksum of a checkpoint is right; ``None`` where it is an archive without a comment."""
    if ends_as_archive(content):
        return None
    at = len(content) - len(_BLANK)
    return at > 0 and _is_intact(content, at, content[at:])


def _sealed(content: bytes, at: int) -> bytes:
    at += len(_PREFIX)
    return content[:at] + _digest(content, at) + content[at + _DIGITS :]


def _is_intact(content: bytes, at: int, written: bytes) -> bool:
    if at < 0 or _WRITTEN.fullmatch(written) is None:
        return False
    return _digest(content, at + len(_PREFIX)) == written[len(_PREFIX) :]


def _digest(content: bytes, at: int) -> bytes:
    view = memoryview(content)
    digest = hashlib.sha256(view[:at])
    digest.update(b"0" * _DIGITS)
    digest.update(view[at + _DIGITS :])
    return digest.hexdigest().encode()
