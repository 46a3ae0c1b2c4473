"""The data sets in the files that their authors published: where they are, their checksums, and how they are read.

Nothing is downloaded unless :func:`fetch` is called, and then by https. What is downloaded must have the SHA-256 that
stands here. Files that lie there already are held against it too: :func:`fetch` refuses those that differ, which may be
somebody's own, and reading them says that they are not the published ones. Source of the checksums:
tensorflow-datasets, Keras and torchvision; for MNIST's unpacked files, the pixels themselves.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hybridkern.lab.archive import DataError, one_line
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.images.formats import Part, read_cifar10, read_mnist, read_svhn
from hybridkern.lab.recipes.run_folder import hash_of

_PACKED = ".tar.gz"


@dataclass(frozen=True)
class Official:
    """A published data set.

    Attributes:
        name: as the recipes call it.
        base_urls: where the files are published; the next is tried where one does not answer.
        checksums: of what is downloaded, by file name: ``"sha256:..."``.
        train, test: the files of each part, any of the alternatives of an entry will do.
        read: images and labels of the given paths.
        unpacked: checksums of what comes out of the downloads, by name: ``"sha256:..."``, or ``"md5:..."`` where no
            other is published.
    """

    name: str
    base_urls: tuple[str, ...]
    checksums: dict[str, str]
    train: tuple[tuple[str, ...], ...]
    test: tuple[tuple[str, ...], ...]
    read: Callable[[list[Path]], Part]
    unpacked: dict[str, str] = field(default_factory=dict)

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

    def others(self, root: Path) -> list[Path]:
        """Those of the files of both parts under ``root`` that are not the published ones, by their checksums."""
        known = self.checksums | self.unpacked
        paths = [*self.paths(root, "train"), *self.paths(root, "test")]
        return [path for path in paths if not has_checksum(path, known.get(path.relative_to(root).as_posix(), ""))]


def has_checksum(path: Path, expected: str) -> bool:
    """Whether a file has the checksum ``"ALGORITHM:DIGEST"``; raises DataError where it cannot be read."""
    algorithm, _, digest = expected.partition(":")
    return bool(digest) and hash_of([path], algorithm) == digest


def fetch(official: Official, root: Path) -> None:
    """Downloads what is missing under ``root`` and verifies its checksum.

    Raises:
        RecipeError: a file cannot be had, or is not what the checksum says; another one lies in its place.
    """
    import pooch

    packed = any(name.endswith(_PACKED) for name in official.checksums)
    for name, checksum in (official.checksums | (official.unpacked if packed else {})).items():
        if (root / name).exists() and not has_checksum(root / name, checksum):  # in the same format, perhaps
            raise RecipeError(
                f"--download: {root / name} is there, and is not the file of {official.name} that was published, by "
                "its checksum; remove or rename it to fetch that"
            )
    for name, checksum in official.checksums.items():
        failure = ""
        for base in official.base_urls:
            try:
                path = pooch.retrieve(base + name, known_hash=checksum, fname=name, path=root)
                break
            except (OSError, ValueError) as error:
                failure = one_line(error)
        else:
            raise RecipeError(f"--download: cannot fetch {name} of {official.name}: {failure}")
        if name.endswith(_PACKED):
            _unpack(official, Path(path), root)


def _unpack(official: Official, archive: Path, root: Path) -> None:
    """Puts each file of an archive in its place whole: one that was cut off would be taken for somebody's own."""
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=root) as beside:
        unpacked = Path(beside)
        try:
            with tarfile.open(archive) as tar:
                # the filter refuses paths that lead out of the folder
                tar.extractall(unpacked, filter="data")
        except (OSError, tarfile.TarError, EOFError) as error:
            raise RecipeError(f"--download: cannot unpack {archive} ({one_line(error)})") from error
        for name, checksum in official.unpacked.items():
            if not has_checksum(unpacked / name, checksum):
                raise RecipeError(f"--download: {archive}: {name}: not the published file, by its checksum {checksum}")
        for path in sorted(unpacked.rglob("*")):
            place = root / path.relative_to(unpacked)
            if path.is_dir():
                place.mkdir(exist_ok=True)
            else:
                os.replace(path, place)


def _gzipped_or_not(name: str) -> tuple[str, str]:
    return name, f"{name}.gz"


SVHN = Official(
    name="svhn",
    base_urls=("https://ufldl.stanford.edu/housenumbers/",),
    checksums={
        "train_32x32.mat": "sha256:435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
        "test_32x32.mat": "sha256:cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
    },
    train=(("train_32x32.mat",),),
    test=(("test_32x32.mat",),),
    read=read_svhn,
)
MNIST = Official(
    name="mnist",
    base_urls=("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    checksums={
        "train-images-idx3-ubyte.gz": "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
    train=(_gzipped_or_not("train-images-idx3-ubyte"), _gzipped_or_not("train-labels-idx1-ubyte")),
    test=(_gzipped_or_not("t10k-images-idx3-ubyte"), _gzipped_or_not("t10k-labels-idx1-ubyte")),
    read=read_mnist,
    unpacked={
        "train-images-idx3-ubyte": "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "sha256:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "sha256:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)
CIFAR10 = Official(
    name="cifar10",
    base_urls=("https://www.cs.toronto.edu/~kriz/",),
    checksums={"cifar-10-python.tar.gz": "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"},
    train=tuple((f"cifar-10-batches-py/data_batch_{index}",) for index in range(1, 6)),
    test=(("cifar-10-batches-py/test_batch",),),
    read=read_cifar10,
    unpacked={
        "cifar-10-batches-py/data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
        "cifar-10-batches-py/data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
        "cifar-10-batches-py/data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
        "cifar-10-batches-py/data_batch_4": "md5:634d18415352ddfa80567beed471001a",
        "cifar-10-batches-py/data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
        "cifar-10-batches-py/test_batch": "md5:40351d587109b95175f43aff81a1287e",
    },
)
BY_NAME = {official.name: official for official in (SVHN, MNIST, CIFAR10)}
