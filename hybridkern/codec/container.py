"""The bytes of a compressed batch: a header with all that is needed to refuse them, then a payload an image.

====================  =====================================================================================
bytes                 meaning
====================  =====================================================================================
3                     ``89 48 4B``
1                     version of the format and networks: 3, of integers; 2, in float64
4                     the first of the model's fingerprint
varints               C, H, W of an image, which may have fewer rows or columns than the model's; N images
N varints             ``2 * bytes of the payload``, plus 1 where it is raw
4                     CRC-32 of all bytes before
payloads              one after the other: a stream of the coder, or, raw, a byte (0 uint8, 1 uint16, 2 int32), the
                      values, and their checksum, little-endian
====================  =====================================================================================

One image of the model's own shape that is not raw needs no more than eight bytes before its stream: the header of
versions 5, of integers, and 4, in float64, ends with the fingerprint. The stream's own checksum finds damage.

Bytes of version 1 are read too: they begin with ``89 48 4B 43 0D 0A 1A 0A 01``, a byte that is 1 for networks of
integers, and 16 bytes of fingerprint.

The checksum of an image is the CRC-32 of its values as int32, little-endian, in the order (C, H, W); a stream
holds it as its seed, of the image as large as the model's. Varints have seven bits a byte, the lowest first; the
highest bit says that another byte follows.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

MAGIC = b"\x89HK"
FINGERPRINT_BYTES = 16
_FIRST_VERSION = b"C\r\n\x1a\n\x01"  # after the magic bytes
_IN_FLOAT64, _OF_INTEGERS = 2, 3
_ALONE = 2  # added to these: one stream, of an image of the model's own shape
_STORED_BYTES = 4  # of a fingerprint: the checksum of an image tells the models apart that these do not
_CRC_BYTES = 4
_MOST_VARINT_BYTES = 6
_RAW = (np.dtype("u1"), np.dtype("<u2"), np.dtype("<i4"))


class DamagedError(ValueError):
    """Compressed data that are damaged, truncated or of another kind; the message says what."""


class OtherModelError(ValueError):
    """Compressed data that another model has to decode."""


@dataclass(frozen=True)
class Header:
    """What stands before the payloads; see the module's table. The first bytes of a fingerprint are enough."""

    integers: bool
    fingerprint: bytes
    shape: tuple[int, int, int]
    sizes: list[int]
    raw: list[bool]


def checksum(image: np.ndarray) -> int:
    """CRC-32 of an image ``(C, H, W)`` of integers."""
    return zlib.crc32(np.ascontiguousarray(image, "<i4").tobytes())


def raw_payload(image: np.ndarray) -> bytes:
    """The values of an image themselves, in the narrowest of three types."""
    low, high = int(image.min()), int(image.max())
    kind = 2 if low < 0 or high >= 1 << 16 else int(high >= 1 << 8)
    return bytes([kind]) + image.astype(_RAW[kind]).tobytes() + checksum(image).to_bytes(_CRC_BYTES, "little")


def read_raw(payload: bytes, shape: tuple[int, int, int]) -> np.ndarray | None:
    """Undoes :func:`raw_payload`, int64; ``None`` where the payload is damaged or of another shape."""
    if not payload or payload[0] >= len(_RAW):
        return None
    kind = _RAW[payload[0]]
    if len(payload) != 1 + int(np.prod(shape)) * kind.itemsize + _CRC_BYTES:
        return None
    image = np.frombuffer(payload[1:-_CRC_BYTES], kind).reshape(shape).astype(np.int64)
    return image if checksum(image).to_bytes(_CRC_BYTES, "little") == payload[-_CRC_BYTES:] else None


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 1 << 7:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Reader:
    """Takes one field after the other from bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes.

        Raises:
            DamagedError: there are fewer.
        """
        if size > len(self.data) - self.at:
            raise DamagedError("data: got a damaged or truncated header, which ends early")
        self.at += size
        return self.data[self.at - size : self.at]

    def varint(self) -> int:
        """The next number; errors as :meth:`take`."""
        value = 0
        for i in range(_MOST_VARINT_BYTES):
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << 7 * i
            if byte < 1 << 7:
                return value
        raise DamagedError("data: got a damaged header, with a number of impossible length")


def pack(header: Header, payloads: list[bytes], own: tuple[int, int, int]) -> bytes:
    """Header and payloads as bytes; ``own`` is the shape of the model's images."""
    version = _OF_INTEGERS if header.integers else _IN_FLOAT64
    fingerprint = header.fingerprint[:_STORED_BYTES]
    if header.raw == [False] and header.shape == own:
        return MAGIC + bytes([version + _ALONE]) + fingerprint + payloads[0]
    head = bytearray(MAGIC + bytes([version]) + fingerprint)
    for number in (*header.shape, len(payloads)):
        head += _varint(number)
    for size, raw in zip(header.sizes, header.raw, strict=True):
        head += _varint(2 * size + raw)
    return bytes(head) + zlib.crc32(head).to_bytes(_CRC_BYTES, "little") + b"".join(payloads)


def _model(reader: Reader) -> tuple[bool, bytes, bool]:
    """Whether networks are those of integers, the fingerprint, as far as it is there, and whether a stream follows."""
    if reader.take(len(MAGIC)) != MAGIC:
        raise DamagedError("data: got another or a damaged header, expected one that begins with 89 48 4B")
    (version,) = reader.take(1)
    for alone in (0, _ALONE):
        if version - alone in (_IN_FLOAT64, _OF_INTEGERS):
            return version - alone == _OF_INTEGERS, reader.take(_STORED_BYTES), bool(alone)
    if version != _FIRST_VERSION[0] or reader.take(len(_FIRST_VERSION) - 1) != _FIRST_VERSION[1:]:
        raise DamagedError(f"data: got a damaged header, or version {version} of the format, expected 2 to 5")
    (integers,) = reader.take(1)
    if integers > 1:
        raise DamagedError("data: got a damaged header, with networks of an unknown kind")
    return bool(integers), reader.take(FINGERPRINT_BYTES), False


def unpack(data: bytes, own: tuple[int, int, int]) -> tuple[Header, list[bytes]]:
    """Header and payloads of :func:`pack`, by a model whose images have the shape ``own``.

    Raises:
        DamagedError: not in this format, of a version that is not known, damaged or truncated.
    """
    reader = Reader(data)
    integers, fingerprint, alone = _model(reader)
    if alone:
        stream = data[reader.at :]
        return Header(integers, fingerprint, own, [len(stream)], [False]), [stream]
    c, h, w, count = (reader.varint() for _ in range(4))
    if count > len(data) - reader.at:
        raise DamagedError("data: got a damaged or truncated header, with more images than bytes")
    coded = [reader.varint() for _ in range(count)]
    expected = zlib.crc32(data[: reader.at])
    if int.from_bytes(reader.take(_CRC_BYTES), "little") != expected:
        raise DamagedError("data: got a damaged header: its checksum says so")
    sizes = [code >> 1 for code in coded]
    left = len(data) - reader.at
    if sum(sizes) != left:
        raise DamagedError(f"data: got {left} bytes of payload, expected {sum(sizes)}")
    header = Header(integers, fingerprint, (c, h, w), sizes, [bool(code & 1) for code in coded])
    return header, [reader.take(size) for size in sizes]
