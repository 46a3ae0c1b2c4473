"""Data sets for the recipes: scikit-learn's digits, and ``.npz`` files of images or of vectors.

Everything is held in memory as float32 tensors of whole numbers, one row an example, because that is what integer
flows take. A file that cannot be used raises :class:`DataError` with one line that names the file and the key.

An ``.npz`` file holds one of

- ``images (N, H, W[, C])`` uint8 and ``labels (N,)`` integer, optionally ``split (N,)`` (or ``suggested_split``):
  0 train, 1 test, -1 unused;
- ``X_train (N, D)``, ``y_train (N,)``, ``X_test (M, D)``, ``y_test (M,)``, with whole numbers in ``X``. Where ``D`` is
  the square of a whole number from 2 on, rows are taken for square images, with a note; others for images of one row.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hybridkern.lab.archive import DataError, array_names, listed, read_arrays

TEST_SHARE = 447 / 1797
"""Share of the examples that a file without a split gives to the test: that of the digits experiment."""
VALIDATION_SHARE = 350 / 1350
"""Share of the training part that is held out for validation: that of the digits experiment."""
_SPLIT_SEED = 0  # the split belongs to the data, not to the run: runs with different seeds stay comparable
_LARGEST = 2**21  # float32 holds every whole number below 2^24; latents and samples lie further out than the data
_CHANNELS = (1, 3)  # others could be trained on, but not drawn
_MOST_CLASSES = 2**31
_IMAGE_KEYS = ("images", "labels")
_SPLIT_KEYS = ("split", "suggested_split")
_TABLE_KEYS = ("X_train", "y_train", "X_test", "y_test")


@dataclass(frozen=True)
class Split:
    """Examples ``x (N, D)``, float32 or uint8 holding whole numbers, and their classes ``y (N,)`` int64."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class DataSet:
    """Training, validation and test examples with what a model needs to know of them.

    Attributes:
        train, validation, test: the three splits.
        shape: shape of one example as an image, ``(H, W)`` or ``(H, W, C)``, or of a vector, ``(D,)``;
            ``D = prod(shape)``.
        classes: number of classes; labels are ``0..classes-1``. 0: ``y`` are numbers, float32.
        grey_levels: number of grey values; the data holds ``0..grey_levels-1``. 0: the data are real numbers.
        source: where it came from, for the record of a run.
    """

    train: Split
    validation: Split
    test: Split
    shape: tuple[int, ...]
    classes: int
    grey_levels: int
    source: str

    @property
    def dim(self) -> int:
        """Dimensions ``D`` of one example."""
        return math.prod(self.shape)


def load_digits() -> DataSet:
    """Scikit-learn's 8x8 digits (1797 examples, values 0..16) in file order: 1000 train, 350 validation, 447 test."""
    from sklearn.datasets import load_digits as sklearn_digits

    images, labels = sklearn_digits(return_X_y=True)
    sizes = [1000, 350, len(labels) - 1350]
    x = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))
    y = torch.from_numpy(np.ascontiguousarray(labels, dtype=np.int64))
    train, validation, test = (Split(*part) for part in zip(x.split(sizes), y.split(sizes), strict=True))
    return DataSet(train, validation, test, shape=(8, 8), classes=10, grey_levels=17, source="scikit-learn digits")


def load_npz(path: str | Path) -> DataSet:
    """Reads an ``.npz`` file of the module's two forms.

    Without a ``split`` the examples are divided as the digits are (1000 : 350 : 447) by a fixed shuffle; with one, the
    validation part is taken from the training part by that shuffle. Neither depends on the seed of a run.

    Raises:
        DataError: the file is missing, truncated or no ``.npz`` file; a key is missing; an array has the wrong dtype or
            shape; a label lies outside ``0..K-1``; a split is empty.
    """
    path = Path(path)
    names = array_names(path)
    if all(key in names for key in _IMAGE_KEYS):
        return _from_images(path, read_arrays(path, _IMAGE_KEYS + _SPLIT_KEYS))
    if all(key in names for key in _TABLE_KEYS):
        return _from_table(path, read_arrays(path, _TABLE_KEYS))
    raise DataError(
        f"{path}: found the keys {listed(names)}, expected 'images' and 'labels', "
        "or 'X_train', 'y_train', 'X_test' and 'y_test'"
    )


def _from_images(path: Path, arrays: dict[str, np.ndarray]) -> DataSet:
    images = check_images(path, arrays["images"])
    labels = check_labels(path, "labels", arrays["labels"], len(images))
    split = split_column(path, arrays, len(images))
    if split is None:
        order = _shuffled(np.arange(len(images)))
        size = round(TEST_SHARE * len(order))
        rows = *_hold_out(order[size:]), order[:size]
    else:
        rows = *_hold_out(np.flatnonzero(split == 0)), np.flatnonzero(split == 1)
    x = images.reshape(len(images), -1)
    return _data_set(path, [(x[part], labels[part]) for part in rows], images.shape[1:])


def check_images(path: Path, images: np.ndarray) -> np.ndarray:
    """``images`` as they are; raises DataError where they are not uint8 ``(N, H, W)`` or ``(N, H, W, 1 or 3)``."""
    if images.dtype != np.uint8:
        raise DataError(f"{path}: images: got dtype {images.dtype}, expected uint8")
    if images.ndim not in (3, 4) or 0 in images.shape[1:]:
        raise DataError(f"{path}: images: got shape {images.shape}, expected (N, H, W) or (N, H, W, C)")
    if images.ndim == 4 and images.shape[3] not in _CHANNELS:
        raise DataError(f"{path}: images: got {images.shape[3]} channels, expected 1 (grey) or 3 (colours)")
    if len(images) == 0:
        raise DataError(f"{path}: images: got none, expected at least one")
    return images


def _from_table(path: Path, arrays: dict[str, np.ndarray]) -> DataSet:
    parts = []
    for part in ("train", "test"):
        key = f"X_{part}"
        x = arrays[key]
        if x.ndim != 2 or x.shape[1] == 0:
            raise DataError(f"{path}: {key}: got shape {x.shape}, expected (N, D)")
        if not _whole(x) or (x.size and not 0 <= x.min() <= x.max() < _LARGEST):
            raise DataError(f"{path}: {key}: expected whole numbers from 0 to 2^21 (integer flows model those)")
        parts.append((x, check_labels(path, f"y_{part}", arrays[f"y_{part}"], len(x))))
    (x, y), test = parts
    if x.shape[1] != test[0].shape[1]:
        raise DataError(f"{path}: X_test: got {test[0].shape[1]} columns, expected {x.shape[1]} as in X_train")
    train, held_out = _hold_out(np.arange(len(x)))
    side = math.isqrt(x.shape[1])
    shape = (side, side) if side * side == x.shape[1] else (1, x.shape[1])
    if shape[0] > 1:  # moved like pixels, numbers of other tables would stand in columns of others
        logging.getLogger("hybridkern").warning(
            "%s: rows of %d numbers are taken for images of %d x %d pixels, by a pixel of which training moves them; "
            "where they are none, --set shift=0 (recipe digits) or --set translation=0 (digits-vae) leaves them alone",
            path, x.shape[1], side, side,
        )  # fmt: skip
    return _data_set(path, [(x[train], y[train]), (x[held_out], y[held_out]), test], shape)


def _data_set(path: Path, parts: list[tuple[np.ndarray, np.ndarray]], shape: tuple[int, ...]) -> DataSet:
    for (_, y), name in zip(parts, ("training", "validation", "test"), strict=True):
        if len(y) == 0:
            raise DataError(f"{path}: the {name} part is empty")
    classes = check_classes(path, *(y for _, y in parts))
    if parts[0][0].min() == parts[0][0].max():
        raise DataError(f"{path}: every value of the training part is {parts[0][0].min():g}, expected at least two")
    grey_levels = 1 + int(max(x.max() for x, _ in parts))
    train, validation, test = (
        Split(torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)), torch.from_numpy(y.astype(np.int64)))
        for x, y in parts
    )
    return DataSet(train, validation, test, tuple(shape), classes, grey_levels, source=path.name)


def check_classes(path: Path, train: np.ndarray, *others: np.ndarray) -> int:
    """The number of classes; raises DataError where it is 1, or labels are not ``0..K-1``, all of them in training."""
    classes = len(np.unique(train))
    if classes < 2:
        raise DataError(f"{path}: labels: got {classes} class in the training part, expected at least 2")
    for y in (train, *others):
        outside = y[(y < 0) | (y >= classes)]
        if len(outside):
            raise DataError(
                f"{path}: labels: got {outside[0]}, expected 0..{classes - 1}: "
                f"whole numbers without gaps, and the training part holds {classes} classes"
            )
    return classes


def check_labels(path: Path, key: str, labels: np.ndarray, count: int) -> np.ndarray:
    """``labels`` as int64 ``(count,)``; raises DataError where they have another shape or are no whole numbers."""
    if labels.shape != (count,):
        raise DataError(f"{path}: {key}: got shape {labels.shape}, expected ({count},), one label an example")
    if not _whole(labels):
        raise DataError(f"{path}: {key}: got {labels.dtype} values, expected int64 class numbers")
    if labels.size and not -_MOST_CLASSES < labels.min() <= labels.max() < _MOST_CLASSES:
        raise DataError(f"{path}: {key}: got numbers up to {labels.max()}, expected class numbers below 2^31")
    return labels.astype(np.int64)


def split_column(path: Path, arrays: dict[str, np.ndarray], count: int) -> np.ndarray | None:
    """``split`` or ``suggested_split`` ``(count,)`` where there is one; raises DataError where it cannot be used."""
    key = next((key for key in _SPLIT_KEYS if key in arrays), None)
    if key is None:
        return None
    split = arrays[key]
    if split.shape != (count,) or split.dtype.kind not in "iu":
        raise DataError(f"{path}: {key}: got {split.dtype} of shape {split.shape}, expected int8 of shape ({count},)")
    unknown = split[~np.isin(split, (-1, 0, 1))]
    if len(unknown):
        raise DataError(f"{path}: {key}: got {unknown[0]}, expected 0 (train), 1 (test) or -1 (unused)")
    return split


def _hold_out(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation rows of a training part."""
    order = _shuffled(rows)
    size = round(VALIDATION_SHARE * len(order))
    return order[size:], order[:size]


def _shuffled(rows: np.ndarray) -> np.ndarray:
    return np.random.default_rng(_SPLIT_SEED).permutation(rows)


def _whole(values: np.ndarray) -> bool:
    """Whether an array of integers or floats holds whole numbers only."""
    if values.dtype.kind in "iu":
        return True
    return values.dtype.kind == "f" and bool(np.isfinite(values).all() and (values == np.round(values)).all())
