"""What ``compress`` reads of pictures: pixels as they are, and by name what it drops or refuses."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hybridkern.lab.archive import DataError
from hybridkern.lab.compress import pictures
from hybridkern.lab.compress.pictures import Pictures
from tests.compress.made import call, picture


@pytest.mark.parametrize(
    ("mode", "suffix", "reason"),
    [
        ("P", "png", "palette"),
        ("1", "png", "1 bits per value"),
        ("I;16", "png", "16 bits per value"),
        ("RGB", "jpg", "suffix '.jpg'"),
    ],
)
def test_what_would_not_come_back_is_refused(run: Path, tmp_path: Path, mode: str, suffix: str, reason: str) -> None:
    path = tmp_path / f"x.{suffix}"
    if mode == "I;16":
        Image.fromarray(np.full((8, 8), 1000, np.uint16)).save(path)
    else:
        picture("RGB", 8, 8).convert(mode).save(path)
    assert reason in call("compress", run, path, "-o", tmp_path / "x.hk", code=1)
    assert not (tmp_path / "x.hk").exists()


def test_metadata_are_named(run: Path, tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Author", "nobody")
    info.add(b"gAMA", (100000).to_bytes(4, "big"))
    picture("L", 8, 8).save(tmp_path / "x.png", pnginfo=info, dpi=(300, 300))
    said = call("compress", run, tmp_path / "x.png", "-o", tmp_path / "x.hk")
    assert "metadata dropped: Author, dpi, gamma" in said


def chunk(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")


def test_chunks_that_pillow_passes_over_are_named(run: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    picture("RGB", 8, 8).save(tmp_path / "x.png", exif=exif)
    content = (tmp_path / "x.png").read_bytes()
    at = content.index(b"IDAT") - 4
    added = chunk(b"cICP", bytes((9, 16, 0, 1))) + chunk(b"vpAg", bytes(9))
    (tmp_path / "x.png").write_bytes(content[:at] + added + content[at:] + b"more")
    picture("RGB", 8, 8).save(tmp_path / "y.webp", lossless=True, exif=exif)
    riff = (tmp_path / "y.webp").read_bytes() + b"abcd" + (4).to_bytes(4, "little") + b"more"
    (tmp_path / "y.webp").write_bytes(riff[:4] + (len(riff) - 8).to_bytes(4, "little") + riff[8:])
    said = call("compress", run, tmp_path / "x.png", tmp_path / "y.webp", "-o", tmp_path / "x.hk", "--no-compare")
    assert "metadata dropped: bytes behind its end, cICP, exif (with orientation 6), vpAg" in said
    assert "metadata dropped: abcd, exif (with orientation 6)" in said


WORDS = {
    "loop": chunk(b"tEXt", b"loop\0by hand"),  # words that are also properties of animations
    "timestamp": chunk(b"iTXt", b"timestamp\0\0\0\0\0noon"),
    "Comment": chunk(b"iTXt", b"Comment\0\1\0\0\0not deflated"),  # which Pillow leaves out
    "Title": chunk(b"iTXt", b"Title\0\0\0\0\0\xff\xfe"),
    "tEXt": chunk(b"tEXt", b"\0without keyword"),
    "pHYs": chunk(b"pHYs", bytes((0, 0, 0, 1, 0, 0, 0, 2, 9))),  # in another unit
    "iTXt": chunk(b"iTXt", b"no keyword \x1b[31m" + 5000 * b"."),
    "zTXt": chunk(b"zTXt", b"a line\nof its own\0\0" + zlib.compress(b"text")),
}


def with_chunks(path: Path, *more: bytes) -> list[str]:
    """What is dropped of a picture with these chunks before its pixels."""
    picture("RGB", 8, 8).save(path)
    content = path.read_bytes()
    at = content.index(b"IDAT") - 4
    path.write_bytes(content[:at] + b"".join(more) + content[at:])
    return pictures.read(path).dropped


def test_texts_and_properties_that_pillow_leaves_out_are_named(tmp_path: Path) -> None:
    assert with_chunks(tmp_path / "x.png", *WORDS.values()) == sorted(WORDS)


def test_texts_without_a_keyword_go_by_the_name_of_their_chunk(tmp_path: Path) -> None:
    for name in (b"tEXt", b"iTXt"):
        for content in (b"no keyword", b"\x1b[31mred\0text", 80 * b"k" + b"\0text"):
            assert with_chunks(tmp_path / "x.png", chunk(name, content)) == [name.decode()]


def test_texts_are_no_chunks_of_the_same_name(tmp_path: Path) -> None:
    words = [chunk(b"tEXt", word + b"\0text") for word in (b"pHYs", b"IDAT", b"acTL", b"dpi")]
    inches = chunk(b"pHYs", (2835).to_bytes(4, "big") * 2 + b"\1")
    assert with_chunks(tmp_path / "x.png", *words) == ["IDAT", "acTL", "dpi", "pHYs"]
    assert with_chunks(tmp_path / "x.png", inches, words[1]) == ["IDAT", "dpi"]
    other = chunk(b"pHYs", bytes((0, 0, 0, 1, 0, 0, 0, 2, 9)))
    assert with_chunks(tmp_path / "x.png", other, words[3]) == ["dpi", "pHYs"]


def test_chunks_of_webp_that_its_header_does_not_announce_are_named(tmp_path: Path) -> None:
    out = io.BytesIO()
    picture("RGB", 8, 8).save(out, "WEBP", lossless=True)
    riff = out.getvalue() + b"".join(name + (4).to_bytes(4, "little") + b"data" for name in (b"EXIF", b"XMP "))
    (tmp_path / "x.webp").write_bytes(riff[:4] + (len(riff) - 8).to_bytes(4, "little") + riff[8:])
    assert pictures.read(tmp_path / "x.webp").dropped == ["EXIF", "XMP "]


def test_sixteen_bits_behind_another_chunk_are_no_eight(tmp_path: Path) -> None:
    head = (2).to_bytes(4, "big") * 2 + bytes((16, 2, 0, 0, 0))
    rows = zlib.compress((b"\0" + bytes(range(12))) * 2)
    chunks = chunk(b"IHDR", head), chunk(b"IDAT", rows), chunk(b"IEND", b"")
    for before, reason in ((b"", "got 16 bits per value"), (chunk(b"teSt", b"\x08" * 20), "another chunk than IHDR")):
        (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + before + b"".join(chunks))
        with pytest.raises(DataError, match=reason):
            pictures.read(tmp_path / "x.png")


@pytest.mark.parametrize("alpha", [0, 200, 255])
def test_a_plane_of_alpha_comes_back_whatever_it_holds(tmp_path: Path, alpha: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 9, 7, 4), dtype=np.uint8)
    pixels[..., 3] = alpha
    for kind in ("png", "webp"):
        pictures.write(tmp_path / f"x.{kind}", Pictures(pixels, kind))
        np.testing.assert_array_equal(pictures.read(tmp_path / f"x.{kind}").pixels, pixels)


@pytest.mark.parametrize("damage", ["checksum", "end", "other"])
def test_damaged_pictures_are_refused(run: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.png"
    picture("RGB", 8, 8).save(path)
    content = bytearray(path.read_bytes())
    content[-13] ^= 1  # of the checksum of the pixels: IEND has 12 bytes
    path.write_bytes({"checksum": content, "end": path.read_bytes()[:-12], "other": b"no picture"}[damage])
    reason = {"checksum": "chunk IDAT is another", "end": "truncated", "other": "another format"}[damage]
    said = call("compress", run, path, "-o", tmp_path / "x.hk", code=1)
    assert said.count(str(path)) == 1 and reason in said and not (tmp_path / "x.hk").exists()
