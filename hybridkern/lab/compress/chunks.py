"""What stands in a PNG or WebP file beside its pixels, from the file itself: Pillow names a part of it alone.

Pillow leaves out text that it cannot read, chunks of WebP that the header does not announce, and a text under the name
of a property of its own cannot be told from that.

Pillow reads pixels whose checksum is wrong, too, and files without an end.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection

_PNG = b"\x89PNG\r\n\x1a\n"
_BEHIND = "bytes behind its end"
_LONGEST_KEYWORD = 79  # bytes of Latin-1, as the PNG specification has it
_PIXELS = frozenset(("IHDR", "IDAT", "IEND", "tRNS", "VP8 ", "VP8L", "VP8X", "ALPH"))
_ANIMATIONS = frozenset(("acTL", "fcTL", "fdAT", "ANIM", "ANMF"))  # which are refused elsewhere
_TEXTS = frozenset(("iTXt", "tEXt", "zTXt"))
# names that Pillow may have for what a chunk holds
_NAMED = {
    "cHRM": ("chromaticity",), "eXIf": ("exif",), "gAMA": ("gamma",), "iCCP": ("icc_profile",),
    "pHYs": ("dpi", "aspect"), "sRGB": ("srgb",),
    "EXIF": ("exif",), "ICCP": ("icc_profile",), "XMP ": ("xmp",),
}  # fmt: skip


def others(content: bytes, named: Collection[object]) -> set[str]:
    """Names of what a file holds and Pillow passes over, keywords of all texts, and a word on bytes behind its end.

    A text without a keyword that can be printed, whole ones of which Pillow takes for keywords, goes by the name of its
    chunk.

    Args:
        content: of the file.
        named: what Pillow has found beside pixels, by its names.

    Raises:
        ValueError: a chunk of a PNG file is not what its checksum says, or the file is truncated.
    """
    found, keywords = _of_png(content) if content.startswith(_PNG) else (_of_webp(content), set())
    known = set(named) - keywords  # Pillow keeps texts under their keywords, beside its own names
    rest = {one for one in found - _PIXELS - _ANIMATIONS if not any(name in known for name in _NAMED.get(one, ()))}
    return {_printable(one) for one in rest} | keywords


def _is_keyword(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_KEYWORD and text.isprintable()


def _printable(name: str) -> str:
    return name if name.isprintable() else name.encode("unicode_escape").decode()


def _of_png(content: bytes) -> tuple[set[str], set[str]]:
    """Names of chunks, those of texts with a keyword left out, and keywords; a text may have the name of a chunk."""
    found: set[str] = set()
    keywords: set[str] = set()
    at, name = len(_PNG), ""
    while name != "IEND":
        size = int.from_bytes(content[at : at + 4], "big")
        end = at + 12 + size  # length, name and checksum have 4 bytes each
        if end > len(content):
            raise ValueError("truncated")
        name = content[at + 4 : at + 8].decode("latin-1")
        if zlib.crc32(content[at + 4 : end - 4]).to_bytes(4, "big") != content[end - 4 : end]:
            raise ValueError(f"the checksum of its chunk {_printable(name)} is another")
        word, nul, _ = content[at + 8 : end - 4].partition(b"\0")
        if name in _TEXTS and nul and _is_keyword(word.decode("latin-1")):
            keywords.add(word.decode("latin-1"))
        else:
            found.add(name)
        at = end
    return found | ({_BEHIND} if at < len(content) else set()), keywords


def _of_webp(content: bytes) -> set[str]:
    found: set[str] = set()
    end = 8 + int.from_bytes(content[4:8], "little")
    at = 12
    while at + 8 <= min(end, len(content)):
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        found.add(content[at : at + 4].decode("latin-1"))
        at += 8 + size + size % 2
    return found | ({_BEHIND} if end < len(content) else set())
