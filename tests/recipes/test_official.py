"""Official files: what is read from them, and one clear error for each that cannot be used."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import pickle
import re
import shutil
import tarfile
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pooch
import pytest
from scipy.io import savemat

from hybridkern.lab.archive import FREE
from hybridkern.lab.data import DataError
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.images import official
from hybridkern.lab.recipes.images.config import ImagesConfig
from hybridkern.lab.recipes.images.formats import read_cifar10
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
    assert (data.shape, data.classes, data.grey_levels) == ((32, 32, 3), 10, 256)
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


def idx_head(*shape: int) -> bytes:
    return bytes((0, 0, 8, len(shape))) + b"".join(size.to_bytes(4, "big") for size in shape)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx_head(2**31, 2**31, 4), "declares 18446744073709551616 bytes"),  # 2^64, which wraps to 0
        (gzip.compress(idx_head(2**31, 2**31, 4), mtime=0), "declares 18446744073709551616 bytes"),
        (gzip.compress(idx_head(2**32 - 1, 1, 1), mtime=0), "declares 4294967295 bytes"),
        (gzip.compress(idx_head(40, 28, 28) + bytes(2**24), mtime=0), "goes on after 31360 bytes"),
        (gzip.compress(idx_head(256, 512, 1024) + bytes(2**27), mtime=0), "declares 134217728 bytes"),
        (b"", "not an idx file"),
    ],
)
def test_sizes_in_idx_files_are_not_believed(tmp_path, content, message):
    mnist_files(tmp_path, ".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            load(config(tmp_path), MNIST)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_packed_matlab_files_are_not_unpacked_beyond_reason(tmp_path):
    svhn_file(tmp_path / "test_32x32.mat")
    path = tmp_path / "train_32x32.mat"
    path.write_bytes((tmp_path / "test_32x32.mat").read_bytes()[:128])
    packed = zlib.compress(bytes(2 * FREE), 1)
    path.write_bytes(path.read_bytes() + (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed)
    with pytest.raises(DataError, match=r"train_32x32\.mat: an element: declares \d+ bytes, more than"):
        load(config(tmp_path), SVHN)
    path.write_bytes(path.read_bytes()[:128])
    os.truncate(path, 2**40)  # a hole, which must not be walked through
    with pytest.raises(DataError, match="train_32x32"):
        load(config(tmp_path), SVHN)


def test_files_that_are_not_the_published_ones_are_said_to_be_others(tmp_path, caplog, monkeypatch):
    values = mnist_files(tmp_path, "")
    with caplog.at_level("WARNING", "hybridkern"):
        data = load(config(tmp_path), MNIST)
    assert data.source == "files in the format of mnist, not the published ones"
    assert "not the files that mnist was published in, by their checksums: train-images-idx3-ubyte, " in caplog.text
    sums = {name: f"sha256:{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}" for name in values}
    caplog.clear()
    published = dataclasses.replace(MNIST, unpacked=sums)
    assert load(config(tmp_path), published).source == "official files of mnist" and not caplog.text
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_head(20) + bytes(range(10)) * 2)
    sums["t10k-labels-idx1-ubyte"] = f"md5:{hashlib.md5(b'other').hexdigest()}"
    published = dataclasses.replace(MNIST, unpacked=sums)
    assert published.others(tmp_path) == [tmp_path / "t10k-labels-idx1-ubyte"]


def test_unpacked_files_are_verified(tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        (tmp_path / "batch").write_bytes(b"good")
        tar.add(tmp_path / "batch", "inside/batch")
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: str(tmp_path / "a.tar.gz"))
    unpacked = {"inside/batch": f"sha256:{hashlib.sha256(b'good').hexdigest()}"}
    sums = {"a.tar.gz": f"sha256:{hashlib.sha256((tmp_path / 'a.tar.gz').read_bytes()).hexdigest()}"}
    made_up = official.Official("made-up", ("https://a/",), sums, (), (), read_cifar10, unpacked)
    official.fetch(made_up, tmp_path)
    official.fetch(made_up, tmp_path)  # all of it is there
    (tmp_path / "inside/batch").unlink()
    unpacked["inside/batch"] = f"sha256:{hashlib.sha256(b'bad').hexdigest()}"
    with pytest.raises(RecipeError, match="inside/batch: not the published file"):
        official.fetch(made_up, tmp_path)


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
        if f"sha256:{hashlib.sha256(source.read_bytes()).hexdigest()}" != known_hash:
            raise ValueError(f"hash of {url}\ndoes not match")
        path.mkdir(exist_ok=True)
        (path / fname).write_bytes(source.read_bytes())
        return str(path / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    sums = {"a.tar.gz": f"sha256:{hashlib.sha256((good / 'a.tar.gz').read_bytes()).hexdigest()}"}
    made_up = official.Official("made-up", (f"file:{bad}/", f"file:{good}/"), sums, (), (), read_cifar10)
    official.fetch(made_up, root)
    assert (root / "inside/batch").read_bytes() == b"good" and len(asked) == 2
    wrong = official.Official("made-up", (f"file:{bad}/",), sums, (), (), read_cifar10)
    with pytest.raises(RecipeError, match=r"cannot fetch a\.tar\.gz of made-up: hash of file:.* does not match"):
        official.fetch(wrong, root)


def test_unpacking_that_is_interrupted_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    """Which the next download would take for somebody's own file."""
    (tmp_path / "batch").write_bytes(b"a batch")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "batch", "inside/batch")
    sums = [f"sha256:{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}" for name in ("a.tar.gz", "batch")]
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(tmp_path / "a.tar.gz", root)
    made_up = official.Official(
        "made-up", ("file:/",), {"a.tar.gz": sums[0]}, (), (), read_cifar10, {"inside/batch": sums[1]}
    )
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: str(root / "a.tar.gz"))

    def cut(tar: tarfile.TarFile, folder: Path, **_: object) -> None:
        (Path(folder) / "inside").mkdir()
        (Path(folder) / "inside/batch").write_bytes(b"a b")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extractall", cut)
        with pytest.raises(KeyboardInterrupt):
            official.fetch(made_up, root)
    assert [path.name for path in root.iterdir()] == ["a.tar.gz"]
    official.fetch(made_up, root)
    assert (root / "inside/batch").read_bytes() == b"a batch"
    assert sorted(path.name for path in root.iterdir()) == ["a.tar.gz", "inside"]


@pytest.mark.parametrize("name", ["a.tar.gz", "inside/batch"])
def test_download_leaves_files_of_ones_own(tmp_path, monkeypatch, name):
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: pytest.fail("fetched"))
    made_up = official.Official(
        "made-up", ("file:/",), {"a.tar.gz": "sha256:0"}, (), (), read_cifar10, {"inside/batch": "sha256:0"}
    )
    (tmp_path / "inside").mkdir()
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(RecipeError, match=f"--download: .*{name} is there, and is not the file of made-up"):
        official.fetch(made_up, tmp_path)
    assert (tmp_path / name).read_bytes() == b"mine"


def test_every_official_file_has_a_checksum():
    for data in (SVHN, MNIST):
        for names in (*data.train, *data.test):
            assert any(name in data.checksums for name in names)
    for data in official.BY_NAME.values():
        assert all(base.startswith("https://") for base in data.base_urls)
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", checksum) for checksum in data.checksums.values())
        assert all(re.fullmatch("sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", sum_) for sum_ in data.unpacked.values())
