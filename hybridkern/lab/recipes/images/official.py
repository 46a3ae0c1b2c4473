"""The data sets in the files that their authors published: where they are, their checksums, and how they are read.

Nothing is downloaded unless :func:`fetch` is called. The checksums are the MD5 sums by which these files are commonly
verified; files that lie there already are read as they are.
"""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hybridkern.lab.data import DataError, check_images, check_labels, listed, one_line
from hybridkern.lab.recipes.errors import RecipeError

Part = tuple[np.ndarray, np.ndarray]
"""``images (N, H, W[, C])`` uint8 and ``labels (N,)`` int64."""


@dataclass(frozen=True)
class Official:
    """A published data set.

    Attributes:
        name: as the recipes call it.
        base_urls: where the files are published; the next is tried where one does not answer.
        checksums: MD5 by file name.
        train, test: the files of each part, any of the alternatives of an entry will do.
        read: images and labels of the given paths.
    """

    name: str
    base_urls: tuple[str, ...]
    checksums: dict[str, str]
    train: tuple[tuple[str, ...], ...]
    test: tuple[tuple[str, ...], ...]
    read: Callable[[list[Path]], Part]

    def paths(self, root: Path, part: str) -> list[Path]:
        """The files of ``"train"`` or ``"test"`` under ``root``.

        Raises:
            DataError: one is missing.
        """
        found = []
        for names in getattr(self, part):
            path = next((root / name for name in names if (root / name).exists()), None)
            if path is None:
                raise DataError(f"{root}: no {' or '.join(names)} there; --download fetches the files of {self.name}")
            found.append(path)
        return found

    def load(self, root: Path, part: str) -> Part:
        """Images and labels of ``"train"`` or ``"test"`` under ``root``; raises DataError where they cannot be read."""
        return self.read(self.paths(root, part))


def fetch(official: Official, root: Path) -> None:
    """Downloads what is missing under ``root`` and verifies its checksum; a wrong file is downloaded again.

    Raises:
        RecipeError: a file cannot be had, or is not what the checksum says.
    """
    import pooch

    for name, md5 in official.checksums.items():
        failure = ""
        for base in official.base_urls:
            try:
                path = pooch.retrieve(base + name, known_hash=f"md5:{md5}", fname=name, path=root)
                break
            except (OSError, ValueError) as error:
                failure = one_line(error)
        else:
            raise RecipeError(f"--download: cannot fetch {name} of {official.name}: {failure}")
        if name.endswith(".tar.gz"):
            _unpack(Path(path), root)


def _unpack(archive: Path, root: Path) -> None:
    with tarfile.open(archive) as tar:
        # the filter refuses paths that lead out of the folder
        tar.extractall(root, filter="data")


def read_svhn(paths: list[Path]) -> Part:
    """SVHN format 2: one ``.mat`` file with ``X (32, 32, 3, N)`` uint8 and ``y (N, 1)``, in which 10 is the digit 0."""
    from scipy.io import loadmat

    (path,) = paths
    try:
        values = loadmat(path)
    except Exception as error:  # a damaged file can raise anything
        raise DataError(f"{path}: not a .mat file, or a truncated one ({one_line(error)})") from error
    if "X" not in values or "y" not in values:
        raise DataError(f"{path}: found the keys {listed(_own(values))}, expected 'X' and 'y'")
    images, labels = np.asarray(values["X"]), np.asarray(values["y"])
    if images.ndim != 4 or images.dtype != np.uint8:
        raise DataError(f"{path}: X: got {images.dtype} of shape {images.shape}, expected uint8 (32, 32, 3, N)")
    images = np.ascontiguousarray(images.transpose(3, 0, 1, 2))
    return images, check_labels(path, "y", labels.reshape(-1), len(images)) % 10


def read_mnist(paths: list[Path]) -> Part:
    """MNIST: an idx file of images and one of labels, gzipped or not."""
    images, labels = (_read_idx(path, dimensions) for path, dimensions in zip(paths, (3, 1), strict=True))
    return check_images(paths[0], images), check_labels(paths[1], "labels", labels, len(images))


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: truncated or damaged ({one_line(error)})") from error
    head = 4 + 4 * dimensions
    # two zero bytes, the type (8: uint8), the number of dimensions; then the sizes, big-endian
    if len(content) < head or content[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(f"{path}: not an idx file of uint8 with {dimensions} dimension{'s' * (dimensions > 1)}")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, 4))
    expected = int(np.prod(shape, dtype=np.int64))
    if len(content) - head != expected:
        raise DataError(f"{path}: truncated or damaged: got {len(content) - head} bytes, expected {expected}")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape).copy()  # bytes cannot be written to


def read_cifar10(paths: list[Path]) -> Part:
    """CIFAR-10: the Python batches, each a dictionary with ``data (N, 3072)`` uint8, colours apart, and ``labels``."""
    parts = [_read_batch(path) for path in paths]
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _read_batch(path: Path) -> Part:
    try:
        batch = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
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


def _own(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if not key.startswith("__")}


def _gzipped_or_not(name: str) -> tuple[str, str]:
    return name, f"{name}.gz"


SVHN = Official(
    name="svhn",
    base_urls=("http://ufldl.stanford.edu/housenumbers/",),
    checksums={
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    },
    train=(("train_32x32.mat",),),
    test=(("test_32x32.mat",),),
    read=read_svhn,
)
MNIST = Official(
    name="mnist",
    base_urls=("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
    checksums={
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    train=(_gzipped_or_not("train-images-idx3-ubyte"), _gzipped_or_not("train-labels-idx1-ubyte")),
    test=(_gzipped_or_not("t10k-images-idx3-ubyte"), _gzipped_or_not("t10k-labels-idx1-ubyte")),
    read=read_mnist,
)
CIFAR10 = Official(
    name="cifar10",
    base_urls=("https://www.cs.toronto.edu/~kriz/",),
    checksums={"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
    train=tuple((f"cifar-10-batches-py/data_batch_{index}",) for index in range(1, 6)),
    test=(("cifar-10-batches-py/test_batch",),),
    read=read_cifar10,
)
BY_NAME = {official.name: official for official in (SVHN, MNIST, CIFAR10)}
