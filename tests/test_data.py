"""Data sets: the digits split, both forms of .npz files, and one clear error for each that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hybridkern.lab.data import DataError, load_digits, load_npz

RNG = np.random.default_rng(0)


def images_file(path: Path, count: int = 60, **changes: object) -> Path:
    arrays = {
        "images": RNG.integers(0, 17, (count, 4, 4)).astype(np.uint8),
        "labels": np.arange(count, dtype=np.int64) % 3,
    }
    arrays |= changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def table_file(path: Path, **changes: np.ndarray) -> Path:
    arrays = {
        "X_train": RNG.integers(0, 5, (40, 6)).astype(np.float32),
        "y_train": (np.arange(40) % 2).astype(np.float32),
        "X_test": RNG.integers(0, 5, (10, 6)).astype(np.float32),
        "y_test": (np.arange(10) % 2).astype(np.float32),
    }
    np.savez(path, **(arrays | changes))
    return path


def test_digits_are_split_in_file_order():
    from sklearn.datasets import load_digits as original

    data, (images, labels) = load_digits(), original(return_X_y=True)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [1000, 350, 447]
    assert (data.shape, data.classes, data.grey_levels, data.dim) == ((8, 8), 10, 17, 64)
    x = torch.cat([data.train.x, data.validation.x, data.test.x])
    y = torch.cat([data.train.y, data.validation.y, data.test.y])
    assert x.dtype is torch.float32 and y.dtype is torch.int64
    assert np.array_equal(x.numpy(), images) and np.array_equal(y.numpy(), labels)


def test_images_without_split_are_divided_as_the_digits_are(tmp_path):
    path = images_file(tmp_path / "a.npz", 1797)
    data = load_npz(path)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [1000, 350, 447]
    assert (data.shape, data.classes, data.grey_levels, data.source) == ((4, 4), 3, 17, "a.npz")
    again = load_npz(path)
    assert torch.equal(data.test.x, again.test.x) and torch.equal(data.train.y, again.train.y)
    everything = torch.cat([data.train.x, data.validation.x, data.test.x])
    stored = torch.from_numpy(np.load(path)["images"]).reshape(1797, 16).float()
    assert torch.equal(everything.unique(dim=0), stored.unique(dim=0))


@pytest.mark.parametrize("key", ["split", "suggested_split"])
def test_split_column_is_followed(tmp_path, key):
    split = np.array([0] * 40 + [1] * 15 + [-1] * 5, dtype=np.int8)
    images = np.arange(60, dtype=np.uint8).repeat(16).reshape(60, 4, 4)
    data = load_npz(images_file(tmp_path / "a.npz", images=images, **{key: split}))
    assert data.test.x[:, 0].tolist() == list(range(40, 55))
    assert sorted([*data.train.x[:, 0].tolist(), *data.validation.x[:, 0].tolist()]) == list(range(40))
    assert len(data.validation) == round(40 * 350 / 1350)
    assert torch.equal(data.train.y, data.train.x[:, 0].long() % 3)


def test_colour_images_keep_their_shape(tmp_path):
    images = RNG.integers(0, 256, (60, 4, 4, 3)).astype(np.uint8)
    assert load_npz(images_file(tmp_path / "a.npz", images=images)).shape == (4, 4, 3)


def test_vectors_are_read(tmp_path):
    data = load_npz(table_file(tmp_path / "a.npz"))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [30, 10, 10]
    assert (data.shape, data.classes) == ((1, 6), 2)


@pytest.mark.parametrize(("columns", "shape"), [(1, (1, 1)), (8, (1, 8)), (4, (2, 2)), (16, (4, 4))])
def test_rows_that_are_taken_for_images_are_named(tmp_path, caplog, columns, shape):
    """Numbers of a table are no pixels: moved by one, as training moves images, they stand in other columns."""
    parts = {name: RNG.integers(0, 5, (count, columns)) for name, count in (("X_train", 40), ("X_test", 10))}
    assert load_npz(table_file(tmp_path / "a.npz", **parts)).shape == shape
    noted = f"rows of {columns} numbers are taken for images of {shape[0]} x {shape[1]} pixels" in caplog.text
    assert noted == (shape[0] > 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "found the keys 'images', expected 'images' and 'labels'"),
        ({"images": np.zeros((60, 4, 4), np.float32)}, "images: got dtype float32, expected uint8"),
        ({"images": np.zeros((60, 16), np.uint8)}, r"images: got shape \(60, 16\), expected \(N, H, W\)"),
        ({"labels": np.zeros(59, np.int64)}, r"labels: got shape \(59,\), expected \(60,\)"),
        ({"labels": np.full(60, 0.5)}, "labels: got float64 values, expected int64"),
        ({"labels": np.arange(60) % 3 - 1}, r"labels: got -1, expected 0\.\.2"),
        ({"labels": np.where(np.arange(60) % 3 == 2, 7, 0)}, r"labels: got 7, expected 0\.\.1"),
        ({"split": np.zeros(60, np.int8)}, "the test part is empty"),
        ({"split": np.ones(60, np.int8)}, "the training part is empty"),
        ({"split": np.full(60, 2, np.int8)}, r"split: got 2, expected 0 \(train\), 1 \(test\) or -1"),
        ({"split": np.zeros(3, np.int8)}, r"split: got int8 of shape \(3,\)"),
    ],
)
def test_unusable_images_are_named(tmp_path, changes, message):
    path = images_file(tmp_path / "a.npz", **changes)
    with pytest.raises(DataError, match=message) as caught:
        load_npz(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X_train": np.full((40, 6), 0.5, np.float32)}, "X_train: expected whole numbers"),
        ({"X_train": np.full((40, 6), np.nan, np.float32)}, "X_train: expected whole numbers"),
        ({"X_test": np.full((10, 6), -1.0, np.float32)}, "X_test: expected whole numbers from 0"),
        ({"X_test": np.full((10, 6), 2.0**24, np.float32)}, "X_test: expected whole numbers from 0"),
        ({"X_test": np.zeros((10, 5), np.float32)}, "X_test: got 5 columns, expected 6"),
        ({"X_train": np.zeros(40, np.float32)}, r"X_train: got shape \(40,\), expected \(N, D\)"),
        ({"y_test": np.full(10, np.inf, np.float32)}, "y_test: got float32 values, expected int64"),
        ({"y_test": np.full(10, 5, np.int64)}, r"labels: got 5, expected 0\.\.1"),
    ],
)
def test_unusable_vectors_are_named(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        load_npz(table_file(tmp_path / "a.npz", **changes))


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.npz: no such file"):
        load_npz(tmp_path / "none.npz")
    path = images_file(tmp_path / "a.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.npz: not an \.npz file, or a truncated one"):
        load_npz(path)
    broken = bytearray(whole)
    broken[200:220] = bytes(20)
    path.write_bytes(broken)
    with pytest.raises(DataError, match=r"a\.npz: damaged \.npz file"):
        load_npz(path)
    np.savez(path, images=np.array([{}], dtype=object), labels=np.zeros(1))
    with pytest.raises(DataError, match=r"a\.npz: damaged \.npz file \(Object arrays"):
        load_npz(path)
