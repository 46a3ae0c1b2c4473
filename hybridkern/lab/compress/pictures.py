"""Pixels of PNG, WebP and ``.npz`` files, and files of pixels. What cannot be kept to the bit is refused by name."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from hybridkern.lab.archive import DataError, array_names, one_line, read_arrays, size_of

SUFFIXES = (".png", ".webp", ".npz")
_MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
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
    found = _read_npz(path) if path.suffix.lower() == ".npz" else _read_image(path)
    found.size = size_of(path)
    return found


def _read_npz(path: Path) -> Pictures:
    arrays = read_arrays(path, array_names(path))
    images = arrays.pop("images", None)
    if images is None or images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
        got = "none" if images is None else f"{images.dtype} of shape {images.shape}"
        raise DataError(f"{path}: images: got {got}, expected uint8 (N, H, W) or (N, H, W, C)")
    pixels = images[..., None] if images.ndim == 3 else images
    if pixels.shape[3] not in (1, 3):
        raise DataError(f"{path}: images: got {pixels.shape[3]} channels, expected 1 or 3")
    return Pictures(pixels, "npz", images.shape, arrays)


def _read_image(path: Path) -> Pictures:
    size_of(path)
    try:
        with Image.open(path) as image:
            _refuse_what_changes(path, image)
            pixels = np.asarray(image)
            dropped = sorted(str(key) for key in image.info if key not in _NO_METADATA)
            kind = str(image.format).lower()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({one_line(error)})") from error
    return Pictures(pixels.reshape(1, *pixels.shape[:2], -1), kind, dropped=dropped)


def _refuse_what_changes(path: Path, image: Image.Image) -> None:
    if image.format not in ("PNG", "WEBP"):
        raise DataError(f"{path}: got a file of the format {image.format}, expected PNG or WebP")
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"{path}: got an animation, expected one image")
    if image.format == "PNG":
        with path.open("rb") as file:
            head = file.read(26)
        if head[24] != 8:
            raise DataError(f"{path}: got {head[24]} bits a value, expected 8")
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
    """Pixels ``(H, W, P)`` as a PNG or a lossless WebP file."""
    out = io.BytesIO()
    image = as_image(pixels)
    if kind == "png":
        image.save(out, "PNG", optimize=True)
    else:
        image.save(out, "WEBP", lossless=True, quality=100, method=4, exact=True)
    return out.getvalue()


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
