"""Official files: what is read from them, and one clear error for each that cannot be used."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pooch
import pytest
from scipy.io import savemat

from hybridkern.lab.data import DataError
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.images import official
from hybridkern.lab.recipes.images.config import ImagesConfig
from hybridkern.lab.recipes.images.official import MNIST, SVHN
from hybridkern.lab.recipes.images.sources import load, load_ood

RNG = np.random.default_rng(0)


def svhn_file(path: Path, count: int = 30) -> tuple[np.ndarray, np.ndarray]:
    images = RNG.integers(0, 256, (32, 32, 3, count)).astype(np.uint8)
    labels = 1 + np.arange(count, dtype=np.uint8)[:, None] % 10
    savemat(path, {"X": images, "y": labels}, do_compression=True)
    return images, labels


def idx(path: Path, values: np.ndarray) -> bytes:
    head = bytes((0, 0, 8, values.ndim)) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    content = head + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return content


def mnist_files(root: Path, suffix: str) -> dict[str, np.ndarray]:
    values = {}
    for part, count in (("train", 40), ("t10k", 20)):
        values[f"{part}-images-idx3-ubyte"] = RNG.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        values[f"{part}-labels-idx1-ubyte"] = np.arange(count) % 10
    for name, value in values.items():
        idx(root / (name + suffix), value)
    return values


def cifar_batch(path: Path, changes: dict | None = None) -> np.ndarray:
    data = RNG.integers(0, 256, (10, 3072)).astype(np.uint8)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps({b"data": data, b"labels": list(range(10))} | (changes or {}), protocol=2))
    return data


def config(root: Path, **options: object) -> ImagesConfig:
    return ImagesConfig(data_root=str(root), batch_size=4, validation=5, **options)


def test_svhn_pixels_and_the_digit_0(tmp_path):
    images, _ = svhn_file(tmp_path / "train_32x32.mat")
    svhn_file(tmp_path / "test_32x32.mat")
    data = load(config(tmp_path), SVHN)
    assert (len(data.train), len(data.validation), len(data.test)) == (25, 5, 30)
    assert (data.shape, data.classes, data.levels) == ((32, 32, 3), 10, 256)
    assert data.train.x.view(-1, 32, 32, 3)[7, 4, 5, 2] == images[4, 5, 2, 7]
    assert data.train.y[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_gzipped_or_not(tmp_path, suffix):
    values = mnist_files(tmp_path, suffix)
    data = load(config(tmp_path, train_size=30), MNIST)
    assert (len(data.train), len(data.test), data.shape) == (25, 20, (28, 28))
    assert np.array_equal(data.train.x.numpy(), values["train-images-idx3-ubyte"][:25].reshape(25, 784))
    assert np.array_equal(data.test.y.numpy(), np.arange(20) % 10)


def test_cifar10_has_its_colours_apart(tmp_path):
    data = cifar_batch(tmp_path / "cifar-10-batches-py/test_batch")
    scored = load_ood("cifar10", str(tmp_path), (32, 32, 3))
    assert scored.name == "cifar10"
    assert np.array_equal(scored.x.view(10, 32, 32, 3).permute(0, 3, 1, 2).flatten(1).numpy(), data)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, r"no train_32x32\.mat there; --download fetches the files of svhn"),
        (lambda path: path.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(40)), r"not a \.mat file, or a truncated one"),
        (lambda path: path.write_bytes(path.read_bytes()[:-3000]), r"not a \.mat file, or a truncated one"),
        (lambda path: savemat(path, {"x": np.zeros(3)}), "found the keys 'x', expected 'X' and 'y'"),
        (lambda path: savemat(path, {"X": np.zeros((2, 2)), "y": [1]}), r"X: got float64 of shape \(2, 2\)"),
    ],
)
def test_unusable_svhn_files_are_named(tmp_path, write, message):
    path = tmp_path / "train_32x32.mat"
    svhn_file(tmp_path / "test_32x32.mat")
    if "truncated" in message:
        svhn_file(path)
    write(path)
    with pytest.raises(DataError, match=message) as caught:
        load(config(tmp_path), SVHN)
    assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte.gz", gzip.compress(bytes(5000), mtime=0)[:-9], "truncated or damaged"),
        ("train-images-idx3-ubyte", bytes(20), "not an idx file of uint8 with 3 dimensions"),
        ("train-labels-idx1-ubyte", bytes((0, 0, 8, 1, 0, 0, 0, 40)) + bytes(39), "got 39 bytes, expected 40"),
        ("train-labels-idx1-ubyte", bytes((0, 0, 8, 1, 0, 0, 0, 3)) + bytes(3), r"labels: got shape \(3,\)"),
    ],
)
def test_unusable_mnist_files_are_named(tmp_path, name, content, message):
    mnist_files(tmp_path, ".gz")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(config(tmp_path), MNIST)


class Harmful:
    def __reduce__(self):
        return print, ("this must not run",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({b"data": np.zeros((3, 10), np.uint8)}, r"data: got uint8 of shape \(3, 10\)"),
        ({b"labels": [1]}, r"labels: got shape \(1,\)"),
        ({b"more": Harmful()}, "it asks for .*print"),
    ],
)
def test_unusable_cifar_batches_are_named(tmp_path, changes, message, capsys):
    path = tmp_path / "cifar-10-batches-py/test_batch"
    cifar_batch(path, changes)
    with pytest.raises(DataError, match=message):
        load_ood("cifar10", str(tmp_path), (32, 32, 3))
    assert capsys.readouterr().out == ""
    path.write_bytes(pickle.dumps({b"data": 1})[:-1])
    with pytest.raises(DataError, match="not a CIFAR-10 batch, or a truncated one"):
        load_ood("cifar10", str(tmp_path), (32, 32, 3))
    path.write_bytes(pickle.dumps({b"x": 1}))
    with pytest.raises(DataError, match="found the keys 'x', expected 'data' and 'labels'"):
        load_ood("cifar10", str(tmp_path), (32, 32, 3))


def test_download_verifies_falls_back_and_unpacks(tmp_path, monkeypatch):
    """From a folder in the place of the publisher; the first address holds a file that is not the published one."""
    good, bad, root = (tmp_path / name for name in ("good", "bad", "root"))
    for folder in (good, bad):
        folder.mkdir()
        (folder / "batch").write_bytes(folder.name.encode())
        with tarfile.open(folder / "a.tar.gz", "w:gz") as tar:
            tar.add(folder / "batch", "inside/batch")
    asked = []

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        asked.append(url)
        source = Path(url.removeprefix("file:"))
        if f"md5:{hashlib.md5(source.read_bytes()).hexdigest()}" != known_hash:
            raise ValueError(f"hash of {url}\ndoes not match")
        path.mkdir(exist_ok=True)
        (path / fname).write_bytes(source.read_bytes())
        return str(path / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    sums = {"a.tar.gz": hashlib.md5((good / "a.tar.gz").read_bytes()).hexdigest()}
    made_up = official.Official("made-up", (f"file:{bad}/", f"file:{good}/"), sums, (), (), official.read_cifar10)
    official.fetch(made_up, root)
    assert (root / "inside/batch").read_bytes() == b"good" and len(asked) == 2
    wrong = official.Official("made-up", (f"file:{bad}/",), sums, (), (), official.read_cifar10)
    with pytest.raises(RecipeError, match=r"cannot fetch a\.tar\.gz of made-up: hash of file:.* does not match"):
        official.fetch(wrong, root)


def test_every_official_file_has_a_checksum():
    for data in (SVHN, MNIST):
        for names in (*data.train, *data.test):
            assert any(name in data.checksums for name in names)
    assert all(len(md5) == 32 and int(md5, 16) for data in official.BY_NAME.values() for md5 in data.checksums.values())
