"""Pixels of PNG, WebP and ``.npz`` files, and files of pixels. What cannot be kept to the bit is refused by name."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from hybridkern.lab.archive import DataError, array_names, one_line, read_arrays, size_of
from hybridkern.lab.compress import chunks

SUFFIXES = (".png", ".webp", ".npz")
LONGEST_WEBP = 16383  # pixels of a side
_MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_ORIENTATION = 0x112  # the tag of EXIF
_OPAQUE = 255
_ALPHA_BYTE, _ALPHA_BIT = 24, 1 << 4  # behind RIFF and the head of VP8L: a signature, two sides of 14 bits, this bit
_NO_METADATA = {"loop", "background", "timestamp", "duration", "interlace"}  # of animations, or how a file is written


@dataclass
class Pictures:
    """Images of one file.

    Attributes:
        pixels: uint8 ``(N, H, W, P)``, grey or red, green, blue, and alpha where there is one.
        kind: ``"png"``, ``"webp"`` or ``"npz"``.
        shape: of the array in an ``.npz`` file.
        others: its other arrays.
        dropped: names of what is not kept.
        size: bytes of the file.
    """

    pixels: np.ndarray
    kind: str
    shape: tuple[int, ...] = ()
    others: dict[str, np.ndarray] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    size: int = 0

    @property
    def has_alpha(self) -> bool:
        """Whether the last plane is alpha."""
        return self.pixels.shape[3] in (2, 4) and self.kind != "npz"


def read(path: Path) -> Pictures:
    """The images of a file.

    Raises:
        DataError: it cannot be read, or holds what would not come back to the bit.
    """
    size = size_of(path)
    if path.suffix.lower() != ".npz":
        return _read_image(path)
    found = _read_npz(path)
    found.size = size
    return found


def _read_npz(path: Path) -> Pictures:
    names = array_names(path)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path}: {twice[0]}: got two arrays of this name, expected one")
    arrays = read_arrays(path, names)
    images = arrays.pop("images", None)
    if images is None or images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
        got = "none" if images is None else f"{images.dtype} of shape {images.shape}"
        raise DataError(f"{path}: images: got {got}, expected uint8 (N, H, W) or (N, H, W, C) with values in it")
    pixels = images[..., None] if images.ndim == 3 else images
    if pixels.shape[3] not in (1, 3):
        raise DataError(f"{path}: images: got {pixels.shape[3]} channels, expected 1 or 3")
    return Pictures(pixels, "npz", images.shape, arrays)


def _read_image(path: Path) -> Pictures:
    try:
        content = path.read_bytes()  # once: the file may change
        with Image.open(io.BytesIO(content)) as image:
            _refuse_what_changes(path, image, content)
            pixels = np.asarray(image)
            keys = {str(key) for key in image.info if key not in _NO_METADATA}
            keys -= set(getattr(image, "text", {})) - {"exif"}  # by keywords, which others() reads from the file
            dropped = {_metadata(image, key) for key in keys}
            kind = str(image.format).lower()
            dropped |= chunks.others(content, image.info)
    except DataError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({_reason(error)})") from error
    pixels = pixels.reshape(1, *pixels.shape[:2], -1)
    return Pictures(pixels, kind, dropped=sorted(dropped), size=len(content))


def _reason(error: Exception) -> str:
    """Pillow says which object it was given, and not what is wrong."""
    return "another format, or damaged" if isinstance(error, UnidentifiedImageError) else one_line(error)


def _metadata(image: Image.Image, key: str) -> str:
    """The name of what is dropped; of an orientation the value too, for viewers turn the picture by it."""
    if key != "exif":
        return key
    try:
        turned = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata can raise anything
        return key
    return key if turned == 1 else f"exif (with orientation {turned})"


def _refuse_what_changes(path: Path, image: Image.Image, content: bytes) -> None:
    if image.format not in ("PNG", "WEBP"):
        raise DataError(f"{path}: got a file of the format {image.format}, expected PNG or WebP")
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"{path}: got an animation, expected one image")
    if image.format == "PNG" and content[12:16] != b"IHDR":  # Pillow looks for it further on
        raise DataError(f"{path}: begins with another chunk than IHDR: damaged")
    if image.format == "PNG" and content[24] != 8:
        raise DataError(f"{path}: got {content[24]} bits per value, expected 8")
    if image.mode == "P":
        raise DataError(f"{path}: got an image with a palette, expected grey or colours (convert it first)")
    if image.mode not in _MODES:
        raise DataError(f"{path}: got mode {image.mode}, expected one of {', '.join(_MODES)}")
    if "transparency" in image.info:
        raise DataError(f"{path}: got a transparent colour, expected an alpha channel (convert it first)")


def as_image(pixels: np.ndarray) -> Image.Image:
    """Pixels ``(H, W, P)`` as an image."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))


def to_bytes(pixels: np.ndarray, kind: str) -> bytes:
    """Pixels ``(H, W, P)`` as a PNG or a lossless WebP file, of as many planes."""
    out = io.BytesIO()
    image = as_image(pixels)
    if kind == "png":
        image.save(out, "PNG", optimize=True)
    else:
        image.save(out, "WEBP", lossless=True, quality=100, method=4, exact=True)
        if pixels.shape[2] == 4 and (pixels[..., 3] == _OPAQUE).all():
            return _with_alpha(out.getvalue())
    return out.getvalue()


def _with_alpha(content: bytes) -> bytes:
    """A lossless WebP file that says it has alpha: of an opaque picture libwebp says it has none, and stores it."""
    if content[12:16] != b"VP8L":
        raise ValueError(f"got a WebP file that begins with {content[12:16]!r}, expected VP8L")
    return content[:_ALPHA_BYTE] + bytes([content[_ALPHA_BYTE] | _ALPHA_BIT]) + content[_ALPHA_BYTE + 1 :]


def write(path: Path, pictures: Pictures) -> None:
    """Writes a file of these images; metadata are not kept."""
    if pictures.kind == "npz":
        arrays = {"images": pictures.pixels.reshape(pictures.shape), **pictures.others}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in arrays.items():  # savez takes "file" and "allow_pickle" for its options
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
    else:
        path.write_bytes(to_bytes(pictures.pixels[0], pictures.kind))
