"""Images of any size as tiles of the model's shape, and what is left over."""

from __future__ import annotations

import numpy as np

from hybridkern.lab.compress.pictures import Pictures

Shape = tuple[int, int, int]


class MismatchError(ValueError):
    """Images that no tiles of the model's shape make up."""


def fitted(height: int, width: int, shape: Shape) -> Shape:
    """The tiles of images of a size: as large as the model's images, or as the images where those are smaller."""
    return shape[0], max(1, min(height, shape[1])), max(1, min(width, shape[2]))


def cut(pictures: Pictures, shape: Shape) -> tuple[np.ndarray, bytes]:
    """Tiles ``(n, C, h, w)`` (:func:`fitted`), image by image, and the bytes of what they do not cover.

    A model of grey images takes colours one by one; alpha, and strips narrower than a tile, are left over.

    Raises:
        MismatchError: the model needs other channels.
    """
    planes, alpha = _planes(pictures)
    groups = _groups(planes, shape)
    n, height, width = pictures.pixels.shape[:3]
    shape = fitted(height, width, shape)
    rows, columns = height // shape[1] * shape[1], width // shape[2] * shape[2]
    blocks = (n, rows // shape[1], shape[1], columns // shape[2], shape[2], groups, shape[0])
    inner = planes[:, :rows, :columns].reshape(blocks)
    tiles = inner.transpose(0, 5, 1, 3, 6, 2, 4).reshape(-1, *shape)
    rest = (planes[:, rows:], planes[:, :rows, columns:], alpha)
    return tiles, b"".join(np.ascontiguousarray(part).tobytes() for part in rest)


def join(tiles: np.ndarray, rest: bytes, size: tuple[int, int, int, int], has_alpha: bool, shape: Shape) -> np.ndarray:
    """Undoes :func:`cut`: pixels ``size``, uint8.

    Raises:
        ValueError: too few tiles or bytes, tiles of another shape, or values that are no pixels.
    """
    n, height, width, count = size
    count -= has_alpha
    shape = fitted(height, width, shape)
    groups = count // shape[0]
    down, across = height // shape[1], width // shape[2]
    rows, columns = down * shape[1], across * shape[2]
    if tiles.shape[1:] != shape:  # as many numbers would fit all the same, and stand elsewhere
        raise ValueError(f"tiles of shape {tiles.shape[1:]}")
    if tiles.size and not 0 <= tiles.min() <= tiles.max() <= 255:
        raise ValueError("values that are no pixels")
    inner = tiles.astype(np.uint8).reshape(n, groups, down, across, *shape).transpose(0, 2, 5, 3, 6, 1, 4)
    pixels = np.empty((n, height, width, count + has_alpha), np.uint8)
    pixels[:, :rows, :columns, :count] = inner.reshape(n, rows, columns, count)
    left = np.frombuffer(rest, np.uint8)
    for part in (pixels[:, rows:, :, :count], pixels[:, :rows, columns:, :count], pixels[..., count:]):
        part[...] = left[: part.size].reshape(part.shape)
        left = left[part.size :]
    if left.size:
        raise ValueError("bytes that belong to nothing")
    return pixels


def _planes(pictures: Pictures) -> tuple[np.ndarray, np.ndarray]:
    """Colours and alpha, which may have no planes."""
    count = pictures.pixels.shape[3] - pictures.has_alpha
    return pictures.pixels[..., :count], pictures.pixels[..., count:]


def _groups(planes: np.ndarray, shape: Shape) -> int:
    count, channels = planes.shape[3], shape[0]
    if channels not in (1, count):
        raise MismatchError(f"got images of {count} colour planes, expected {channels}, those of the model")
    return count // channels
