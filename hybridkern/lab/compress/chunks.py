"""What stands in a PNG or WebP file beside its pixels, from the file itself: Pillow names a part of it alone.

Pillow reads pixels whose checksum is wrong, too, and files without an end.
"""

from __future__ import annotations

import zlib

_PNG = b"\x89PNG\r\n\x1a\n"
_BEHIND = "bytes behind its end"
# pixels, animations (which are refused elsewhere), and what Pillow names in the ``info`` of an image
_PNG_KNOWN = frozenset(
    ("IHDR", "IDAT", "IEND", "tRNS", "acTL", "fcTL", "fdAT")
    + ("cHRM", "eXIf", "gAMA", "iCCP", "iTXt", "pHYs", "sRGB", "tEXt", "zTXt")
)
_WEBP_KNOWN = frozenset(("VP8 ", "VP8L", "VP8X", "ALPH", "ANIM", "ANMF", "ICCP", "EXIF", "XMP "))


def others(content: bytes) -> list[str]:
    """Names of the chunks of a file that Pillow passes over, and a word on bytes behind its end.

    Raises:
        ValueError: a chunk of a PNG file is not what its checksum says, or the file is truncated.
    """
    return _of_png(content) if content.startswith(_PNG) else _of_webp(content)


def _of_png(content: bytes) -> list[str]:
    found: set[str] = set()
    at, name = len(_PNG), ""
    while name != "IEND":
        size = int.from_bytes(content[at : at + 4], "big")
        end = at + 12 + size  # length, name and checksum have 4 bytes each
        if end > len(content):
            raise ValueError("truncated")
        name = content[at + 4 : at + 8].decode("latin-1")
        if zlib.crc32(content[at + 4 : end - 4]).to_bytes(4, "big") != content[end - 4 : end]:
            raise ValueError(f"the checksum of its chunk {name} is another")
        found.add(name)
        at = end
    return sorted(found - _PNG_KNOWN) + [_BEHIND] * (at < len(content))


def _of_webp(content: bytes) -> list[str]:
    found: set[str] = set()
    end = 8 + int.from_bytes(content[4:8], "little")
    at = 12
    while at + 8 <= min(end, len(content)):
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        found.add(content[at : at + 4].decode("latin-1"))
        at += 8 + size + size % 2
    return sorted(found - _WEBP_KNOWN) + [_BEHIND] * (end < len(content))
