"""What other lossless formats make of images, to compare with: PNG and WebP by Pillow, others where they are there."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable

import numpy as np

from hybridkern.lab.compress.pictures import as_image

Encoder = Callable[[np.ndarray], bytes]
_JPEG_XL_EFFORT = 9


def encoders() -> dict[str, Encoder]:
    """By its name, what makes pixels ``(H, W, P)``, uint8, the bytes of a file, each at its strongest.

    JPEG XL and JPEG 2000 need the package imagecodecs, and are left out without it.
    """
    found: dict[str, Encoder] = {"PNG": _png, "WebP": _webp}
    try:
        imagecodecs = importlib.import_module("imagecodecs")
        if imagecodecs.JPEGXL.available:
            found["JPEG XL"] = lambda pixels: bytes(
                imagecodecs.jpegxl_encode(_plain(pixels), lossless=True, effort=_JPEG_XL_EFFORT)
            )
        if imagecodecs.JPEG2K.available:
            found["JPEG 2000"] = lambda pixels: bytes(
                imagecodecs.jpeg2k_encode(_plain(pixels), reversible=True, codecformat="j2k", level=0)
            )
    except ImportError:
        pass
    return found


def strips(images: np.ndarray, count: int) -> list[np.ndarray]:
    """Images ``(N, H, W, P)`` in columns of ``count``, one below the other: ``(count H, W, P)`` each."""
    return [part.reshape(-1, *part.shape[2:]) for part in np.array_split(images, range(count, len(images), count))]


def _plain(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    as_image(pixels).save(out, "PNG", optimize=True)
    return out.getvalue()


def _webp(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    as_image(pixels).save(out, "WEBP", lossless=True, quality=100, method=6, exact=True)
    return out.getvalue()
