"""The archive ``.hk``: a header, a record a file, and an end, one after the other, so that none waits for another.

It begins with ``89 48 4B 41 0D 0A 1A 0A`` and the version 1. A record is a byte (``H``, ``E`` for a file, ``Z`` for the
end), the length of its description (4 bytes, little-endian), the description in JSON, the length of its payload (8
bytes), the payload, and the CRC-32 of all of that. The payload of a file is what :class:`hybridkern.codec.Codec` made
of its tiles, ``coded`` bytes, then the rest, deflated.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

MAGIC = b"\x89HKA\r\n\x1a\n\x01"
HEADER, ENTRY, END = b"H", b"E", b"Z"
_MOST_DESCRIPTION = 1 << 20


class ArchiveError(ValueError):
    """An archive that is damaged, truncated or of another kind."""


@dataclass
class Record:
    """One record; ``payload`` is ``None`` where only its length was asked for."""

    kind: bytes
    description: dict[str, Any]
    payload: bytes
    size: int


def write(file: BinaryIO, kind: bytes, description: dict[str, Any], payload: bytes = b"") -> int:
    """Appends a record; returns its bytes."""
    text = json.dumps(description, separators=(",", ":")).encode()  # in ASCII: a path may hold bytes that are no UTF-8
    head = kind + len(text).to_bytes(4, "little") + text + len(payload).to_bytes(8, "little")
    crc = zlib.crc32(payload, zlib.crc32(head)).to_bytes(4, "little")
    file.write(head + payload + crc)
    return len(head) + len(payload) + len(crc)


def read(file: BinaryIO, size: int) -> Iterator[Record]:
    """The records of a file of ``size`` bytes, header and end among them.

    Raises:
        ArchiveError: it is damaged, truncated or of another kind.
    """
    if file.read(len(MAGIC)) != MAGIC:
        raise ArchiveError("got other bytes than those of an .hk archive of version 1")
    kind = b""
    while kind != END:
        record = _record(file, size)
        if (kind == b"") != (record.kind == HEADER) or record.kind not in (HEADER, ENTRY, END):
            raise ArchiveError("damaged: records out of order")
        kind = record.kind
        yield record
    if file.read(1):
        raise ArchiveError("damaged: bytes behind its end")


def _record(file: BinaryIO, size: int) -> Record:
    head = _take(file, 5, size)
    length = int.from_bytes(head[1:], "little")
    if length > _MOST_DESCRIPTION:
        raise ArchiveError("damaged: a description of impossible length")
    text = _take(file, length + 8, size)
    payload = _take(file, int.from_bytes(text[length:], "little"), size)
    if zlib.crc32(payload, zlib.crc32(head + text)).to_bytes(4, "little") != _take(file, 4, size):
        raise ArchiveError("damaged: the checksum of a record is another")
    try:
        description = json.loads(text[:length])
    except (ValueError, RecursionError) as error:
        raise ArchiveError("damaged: a description that is no JSON") from error
    if not isinstance(description, dict):
        raise ArchiveError("damaged: a description that is no object")
    return Record(head[:1], description, payload, 5 + len(text) + len(payload) + 4)


def _take(file: BinaryIO, count: int, size: int) -> bytes:
    if count > size - file.tell():
        raise ArchiveError("truncated")
    return file.read(count)
