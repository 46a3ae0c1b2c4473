"""The data of a configuration: ``.npz`` files or a data set's official ones, as rows of uint8.

A row holds the pixels from top to bottom, colours last: seen as ``(N, H, W, C)`` and with the channels moved to the
front it is a channels_last tensor, without a copy.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hybridkern.hybrid._labels import UNLABELLED
from hybridkern.lab.archive import DataError, array_names, listed, read_arrays
from hybridkern.lab.data import TEST_SHARE, DataSet, Split, check_classes, check_images, check_labels, split_column
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.images.formats import Part
from hybridkern.lab.recipes.images.official import BY_NAME, Official
from hybridkern.lab.recipes.images.training_config import TrainingConfig

GREY_LEVELS = 256
_KEYS = ("images", "labels", "split", "suggested_split")
_SPLIT_SEED = 0  # the split belongs to the data, not to the run


@dataclass(frozen=True)
class Scored:
    """Images to score: ``x (N, D)`` uint8, what to call them, and their own labels ``y (N,)`` where they have some."""

    x: Tensor
    name: str
    y: Tensor | None = None


def files(config: TrainingConfig, official: Official) -> list[Path]:
    """The files that a configuration trains and tests on.

    Raises:
        RecipeError: neither ``data`` nor ``data_root`` is set, or both; ``test_data`` beside ``data_root``.
        DataError: a file is missing.
    """
    if (config.data is None) == (config.data_root is None):
        raise RecipeError(
            f"--data: the recipe needs either --data FILE.npz or --data-root DIR with the files of {official.name}"
            + ("" if config.data is None else ", not both")
        )
    if config.data_root is not None:
        if config.test_data is not None:
            raise RecipeError(
                f"--test-data: got {config.test_data}, expected none: --data-root has a test part of its own"
            )
        root = Path(config.data_root)
        return official.paths(root, "train") + official.paths(root, "test")
    named = [Path(path) for path in (config.data, config.test_data) if path is not None]
    for path in named:
        if not path.exists():
            raise DataError(f"{path}: no such file")
    if len(named) == 2 and named[0].samefile(named[1]):
        raise RecipeError(
            f"--test-data: got {named[1]}, the file of --data, all of which is trained on; expected another one, or "
            "none: then a part of the file, that of its split where it has one, is the test"
        )
    return named


def load(config: TrainingConfig, official: Official) -> DataSet:
    """Training, validation and test images of a configuration.

    Raises:
        RecipeError: a setting does not fit the data.
        DataError: a file is missing, truncated, or holds something else.
    """
    paths = files(config, official)
    if config.data_root is not None:
        train, test = (official.load(Path(config.data_root), part) for part in ("train", "test"))
        source = _described(official, Path(config.data_root))
    elif config.test_data is not None:
        train, test = _whole_file(paths[0]), _test_of(paths[1])
        source = f"{paths[0].name}, test: {paths[1].name}"
    else:
        train, test = _divided_file(paths[0])
        source = paths[0].name
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataError(
            f"{paths[-1]}: images: got shape {test[0].shape[1:]}, expected {train[0].shape[1:]}, that of training"
        )
    data = _data_set(paths, train, test, config, source)
    if config.ood is not None:  # what cannot be scored should be known before hours of training
        load_ood(config.ood, config.data_root, data.shape, config.ood_size)
    return data


def _described(official: Official, root: Path) -> str:
    """What the record of a run says of the files; a note where they are others."""
    others = official.others(root)
    if not others:
        return f"official files of {official.name}"
    listed_paths = ", ".join(path.name for path in others)
    logging.getLogger("hybridkern").warning(
        "%s: not the files that %s was published in, by their checksums: %s", root, official.name, listed_paths
    )
    return f"files in the format of {official.name}, not the published ones"


def load_ood(name: str, data_root: str | None, shape: tuple[int, ...], size: int | None = None) -> Scored:
    """Images of another source: an ``.npz`` file (its test part where it has a split), or an official data set's test.

    Of a file whose split has no test part, the images that the split does not leave out. With ``size`` only so many of
    them, spread evenly over the file.

    Raises:
        RecipeError: an official data set without ``data_root``.
        DataError: the file cannot be used, or its images have another shape.
    """
    labels: np.ndarray | None
    if name in BY_NAME:
        if data_root is None:
            raise RecipeError(f"--ood: got {name}, which needs --data-root DIR with its official files")
        (images, labels), label = BY_NAME[name].load(Path(data_root), "test"), name
    else:
        path = Path(name)
        arrays = read_arrays(path, _KEYS)
        if "images" not in arrays:
            raise DataError(f"{path}: found the keys {listed(array_names(path))}, expected 'images'")
        images, label = check_images(path, arrays["images"]), path.stem
        labels = check_labels(path, "labels", arrays["labels"], len(images)) if "labels" in arrays else None
        split = split_column(path, arrays, len(images))
        if split is not None:
            kept_rows = split == 1 if (split == 1).any() else split == 0
            images, labels = images[kept_rows], None if labels is None else labels[kept_rows]
    if _with_colours(images).shape[1:] != (*shape[:2], *(shape[2:] or (1,))):
        raise DataError(f"{name}: images: got shape {images.shape[1:]}, expected {tuple(shape)}, that of training")
    if len(images) == 0:
        raise DataError(f"{name}: holds no image")
    kept = np.linspace(0, len(images) - 1, min(size or len(images), len(images))).astype(np.int64)
    return Scored(_rows(images[kept]), label, None if labels is None else torch.from_numpy(labels[kept]))


def _whole_file(path: Path) -> Part:
    """All images of a file but those its split leaves out."""
    images, labels, split = _read(path)
    return (images, labels) if split is None else (images[split >= 0], labels[split >= 0])


def _test_of(path: Path) -> Part:
    images, labels, split = _read(path)
    return (images, labels) if split is None else (images[split == 1], labels[split == 1])


def _divided_file(path: Path) -> tuple[Part, Part]:
    images, labels, split = _read(path)
    if split is None:
        order = np.random.default_rng(_SPLIT_SEED).permutation(len(images))
        size = round(TEST_SHARE * len(order))
        train, test = order[size:], order[:size]
    else:
        train, test = np.flatnonzero(split == 0), np.flatnonzero(split == 1)
    return (images[train], labels[train]), (images[test], labels[test])


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    arrays = read_arrays(path, _KEYS)
    if "images" not in arrays or "labels" not in arrays:
        raise DataError(f"{path}: found the keys {listed(array_names(path))}, expected 'images' and 'labels'")
    images = check_images(path, arrays["images"])
    return images, check_labels(path, "labels", arrays["labels"], len(images)), split_column(path, arrays, len(images))


def _data_set(paths: list[Path], train: Part, test: Part, config: TrainingConfig, source: str) -> DataSet:
    images, labels = (values[: config.train_size] for values in train)
    if config.train_size is not None and len(labels) < config.train_size:
        raise RecipeError(f"--train-size: got {config.train_size}, but the training part has {len(labels)} images")
    # The last ones and not any ones: neighbours may be parts of one photograph.
    kept = len(labels) - config.validation
    if kept < config.batch_size:
        raise RecipeError(
            f"--batch-size: got {config.batch_size}, but only {max(kept, 0)} of {len(labels)} training images are left "
            f"to train on after --validation {config.validation}"
        )
    if len(test[1]) == 0:
        raise DataError(f"{paths[-1]}: the test part is empty")
    classes = check_classes(paths[0], labels, test[1])
    return DataSet(
        train=few_labels(_split(images[:kept], labels[:kept]), classes, config),
        validation=_split(images[kept:], labels[kept:]),
        test=_split(*test),
        shape=images.shape[1:],
        classes=classes,
        grey_levels=GREY_LEVELS,
        source=source,
    )


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    return Split(_rows(images), torch.from_numpy(np.ascontiguousarray(labels)))


def few_labels(train: Split, classes: int, config: TrainingConfig) -> Split:
    """The training images with ``config.labels`` labels among them, spread evenly over classes and file; others -1.

    Without use for those others they are left out.
    """
    if config.labels is None:
        return train
    each, more = divmod(config.labels, classes)
    places = [torch.nonzero(train.y == label).squeeze(1) for label in range(classes)]
    counts = [each + (label < more) for label in range(classes)]
    for label, (found, count) in enumerate(zip(places, counts, strict=True)):
        if not 1 <= count <= len(found):
            raise RecipeError(
                f"--labels: got {config.labels}, expected at least one and at most all images of each of {classes} "
                f"classes; class {label} has {len(found)}"
            )
    chosen = torch.cat([
        found[torch.linspace(0, len(found) - 1, count).long()] for found, count in zip(places, counts, strict=True)
    ]).sort().values  # fmt: skip
    if not config.semi_supervised:
        return Split(train.x[chosen], train.y[chosen])
    y = torch.full_like(train.y, UNLABELLED)
    y[chosen] = train.y[chosen]
    return Split(train.x, y)


def _with_colours(images: np.ndarray) -> np.ndarray:
    return images[..., None] if images.ndim == 3 else images


def _rows(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images).reshape(len(images), -1))
