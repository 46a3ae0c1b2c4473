"""The formats in which data sets of images were published: SVHN's, MNIST's and CIFAR-10's."""

from __future__ import annotations

import gzip
import io
import math
import pickle
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hybridkern.lab.archive import FREE, RATIO, DataError, listed, one_line, require_plausible, size_of
from hybridkern.lab.data import check_images, check_labels

Part = tuple[np.ndarray, np.ndarray]
"""``images (N, H, W[, C])`` uint8 and ``labels (N,)`` int64."""
_BLOCK = 2**20
_MAT_HEADER = 128
_COMPRESSED, _LAST_KIND = 15, 18


def read_svhn(paths: list[Path]) -> Part:
    """SVHN format 2: one ``.mat`` file with ``X (32, 32, 3, N)`` uint8 and ``y (N, 1)``, in which 10 is the digit 0."""
    from scipy.io import loadmat, whosmat

    (path,) = paths
    size_of(path)
    try:
        _require_plausible_elements(path)
        values = loadmat(path, variable_names=["X", "y"])
        names = [name for name, *_ in whosmat(path)] if not {"X", "y"} <= set(values) else []
    except DataError:
        raise
    except Exception as error:  # a damaged file can raise anything
        raise DataError(f"{path}: not a .mat file, or a truncated one ({one_line(error)})") from error
    if "X" not in values or "y" not in values:
        raise DataError(f"{path}: found the keys {listed(names)}, expected 'X' and 'y'")
    images, labels = np.asarray(values["X"]), np.asarray(values["y"])
    if images.ndim != 4 or images.dtype != np.uint8:
        raise DataError(f"{path}: X: got {images.dtype} of shape {images.shape}, expected uint8 (32, 32, 3, N)")
    images = np.ascontiguousarray(images.transpose(3, 0, 1, 2))
    return images, check_labels(path, "y", labels.reshape(-1), len(images)) % 10


def read_mnist(paths: list[Path]) -> Part:
    """MNIST: an idx file of images and one of labels, gzipped or not."""
    images, labels = (_read_idx(path, dimensions) for path, dimensions in zip(paths, (3, 1), strict=True))
    return check_images(paths[0], images), check_labels(paths[1], "labels", labels, len(images))


def _require_plausible_elements(path: Path) -> None:
    """Raises DataError where a compressed element of a ``.mat`` file unpacks to more than is plausible."""
    with open(path, "rb") as file:
        order = "little" if file.read(_MAT_HEADER)[126:] == b"IM" else "big"
        while len(tag := file.read(8)) == 8:
            kind, size = (int.from_bytes(tag[part], order) for part in (slice(4), slice(4, 8)))  # type: ignore[arg-type]
            if not 1 <= kind <= _LAST_KIND:
                return  # whatever this is, the reader will say so
            if kind == _COMPRESSED:
                require_plausible(path, "an element", _unpacked_size(file.read(size), size), size)
            else:
                file.seek(size, io.SEEK_CUR)


def _unpacked_size(packed: bytes, limit: int) -> int:
    """Bytes that a zlib stream holds; it is not unpacked further than is plausible."""
    stream, size = zlib.decompressobj(), 0
    while not stream.eof and size <= max(FREE, RATIO * limit):
        part = stream.decompress(packed, _BLOCK)
        if not part:
            break
        size += len(part)
        packed = stream.unconsumed_tail
    return size


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    packed = size_of(path)
    try:
        with open(path, "rb") as plain:
            gzipped = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            if not gzipped:
                return _idx(path, plain, dimensions, packed)
            with gzip.GzipFile(fileobj=plain) as unpacked:
                return _idx(path, unpacked, dimensions, packed)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: truncated or damaged ({one_line(error)})") from error


def _idx(path: Path, file: BinaryIO | gzip.GzipFile, dimensions: int, packed: int) -> np.ndarray:
    # two zero bytes, the type (8: uint8), the number of dimensions; then the sizes, big-endian
    head = file.read(4 + 4 * dimensions)
    if len(head) < 4 + 4 * dimensions or head[:4] != bytes((0, 0, 8, dimensions)):
        file.read(_BLOCK)  # a truncated file rather says that
        raise DataError(f"{path}: not an idx file of uint8 with {dimensions} dimension{'s' * (dimensions > 1)}")
    shape = tuple(np.frombuffer(head, ">u4", dimensions, 4).tolist())
    expected = math.prod(shape)  # Python's integers do not wrap
    require_plausible(path, f"its shape {shape}", expected, packed)
    content = file.read(expected)
    if len(content) != expected:
        raise DataError(f"{path}: truncated or damaged: got {len(content)} bytes, expected {expected}")
    if file.read(1):
        raise DataError(f"{path}: truncated or damaged: goes on after {expected} bytes")
    return np.frombuffer(content, np.uint8).reshape(shape).copy()  # bytes cannot be written to


def read_cifar10(paths: list[Path]) -> Part:
    """CIFAR-10: the Python batches, each a dictionary with ``data (N, 3072)`` uint8, colours apart, and ``labels``."""
    parts = [_read_batch(path) for path in paths]
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _read_batch(path: Path) -> Part:
    try:
        size_of(path)
        with open(path, "rb") as file:
            batch = _ArraysOnly(file, encoding="bytes").load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{path}: not a CIFAR-10 batch, or a truncated one ({one_line(error)})") from error
    if not isinstance(batch, dict) or b"data" not in batch or b"labels" not in batch:
        keys = [key.decode(errors="replace") for key in batch] if isinstance(batch, dict) else []
        raise DataError(f"{path}: found the keys {', '.join(map(repr, keys)) or 'none'}, expected 'data' and 'labels'")
    data = np.asarray(batch[b"data"])
    if data.ndim != 2 or data.shape[1] != 3072 or data.dtype != np.uint8:
        raise DataError(f"{path}: data: got {data.dtype} of shape {data.shape}, expected uint8 (N, 3072)")
    images = np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return images, check_labels(path, "labels", np.asarray(batch[b"labels"]), len(images))


class _ArraysOnly(pickle.Unpickler):
    """Refuses everything but NumPy arrays: a pickle from elsewhere may otherwise run any code."""

    _allowed = frozenset(
        [(f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")]
        + [("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")]
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)
