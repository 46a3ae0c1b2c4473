"""The folder of one run: what lies where, and whether a run may begin or go on there."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hybridkern
from hybridkern._saved.seals import tensors_are_intact, tensors_end
from hybridkern._temporary import is_temporary
from hybridkern.lab.archive import one_line
from hybridkern.lab.data import DataError
from hybridkern.lab.recipes.config import Config
from hybridkern.lab.recipes.errors import DamagedFileError, RecipeError
from hybridkern.lab.recipes.files import read_file, read_json, remove_leftovers, size_of, write_sealed_json
from hybridkern.lab.recipes.lock import locked
from hybridkern.lab.recipes.recipe import DataShape, Recipe, get_recipe

_LARGEST_HEADER = 100_000_000  # that safetensors takes
_KEYS = {"recipe", "hybridkern", "config", "data", "data_sha256", "model"}


@dataclass(frozen=True)
class RunFolder:
    """Paths inside a run folder. ``metrics.json`` is written last: where it is, the run is finished."""

    root: Path

    @property
    def config(self) -> Path:
        """Recipe, settings and shape of the data."""
        return self.root / "config.json"

    @property
    def metrics(self) -> Path:
        """The figures of the finished run."""
        return self.root / "metrics.json"

    @property
    def weights(self) -> Path:
        """The weights of the best epoch."""
        return self.root / "model.safetensors"

    def read_weights(self, sealed: bool) -> bytes:
        """The content of :attr:`weights`.

        Raises:
            DamagedFileError: missing, truncated or changed; or ``sealed``, and there is no checksum in it.
        """
        path = self.weights
        size = size_of(path)
        try:
            with open(path, "rb") as file:
                head = file.read(8)
                head += file.read(min(int.from_bytes(head, "little"), _LARGEST_HEADER))
        except OSError as error:
            raise DamagedFileError(f"{path}: cannot be read ({one_line(error)})") from error
        if tensors_end(head) != size:
            raise DamagedFileError(f"{path}: missing or damaged (truncated, or another file)")
        content = read_file(path)
        intact = tensors_are_intact(content)
        if intact is False or (intact is None and sealed):
            fault = "no checksum in it" if intact is None else "its checksum is another"
            raise DamagedFileError(f"{path}: missing or damaged ({fault})")
        return content

    @property
    def checkpoints(self) -> Path:
        """Where ``best.ckpt`` and ``last.ckpt`` lie."""
        return self.root / "checkpoints"

    @contextmanager
    def new(self) -> Iterator[None]:
        """Makes the folder, and holds it for the block.

        Raises:
            RecipeError: it holds something already, cannot be written to, or another process is at work in it.
        """
        with self._held(make=True):
            if self.metrics.exists():
                raise RecipeError(f"--out: {self.root} holds a finished run; choose another folder, or --resume it")
            if self.config.exists():
                raise RecipeError(f"--out: {self.root} holds an unfinished run; choose another folder, or --resume it")
            if not self._only_begun():
                raise RecipeError(f"--out: {self.root} exists and is no run folder; choose another folder")
            self._clear()
            yield

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """Holds the folder for the block.

        A run that was killed before it wrote ``config.json`` can be gone on with too: it begins.

        Raises:
            RecipeError: there is no run to go on with, it cannot be written to, or another process is at work in it.
        """
        if not self.root.is_dir():
            raise RecipeError(f"--resume: {self.root} holds no run to go on with")
        with self._held(make=False):
            if not self.config.exists() and not self._only_begun():
                raise RecipeError(f"--resume: {self.root} holds no run to go on with")
            self._clear()
            yield

    @contextmanager
    def _held(self, make: bool) -> Iterator[None]:
        with ExitStack() as lock:
            try:
                if self.root.exists() and not self.root.is_dir():
                    raise RecipeError(f"--out: {self.root} exists and is no run folder; choose another folder")
                if make:
                    self.root.mkdir(parents=True, exist_ok=True)
                lock.enter_context(locked(self.root))
            except OSError as error:
                raise RecipeError(f"--out: cannot write to {self.root} ({error.strerror})") from error
            yield

    def _only_begun(self) -> bool:
        """Whether there is nothing in the folder but what a run makes before ``config.json``."""
        try:
            return all(
                is_temporary(path) or (path == self.checkpoints and _is_empty(path)) for path in self.root.iterdir()
            )
        except OSError as error:
            raise RecipeError(f"--out: cannot read {self.root} ({error.strerror})") from error

    def _clear(self) -> None:
        """Removes what a killed process left, and sees whether the folder can be written to."""
        try:
            self.checkpoints.mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=self.checkpoints), tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise RecipeError(f"--out: cannot write to {self.root} ({error.strerror})") from error
        remove_leftovers(self.root)
        remove_leftovers(self.checkpoints)


@dataclass(frozen=True)
class RunRecord:
    """What ``config.json`` holds; ``sealed``: whether the files of the run hold checksums. Version 0.1 wrote none.

    ``model`` says for :func:`hybridkern.load` how the model was built, where it can be built without the recipe.
    """

    recipe: Recipe
    config: Config
    data: DataShape
    data_hash: str | None
    sealed: bool = True
    model: dict[str, Any] | None = None

    def write(self, folder: RunFolder) -> None:
        """Writes ``config.json``."""
        values = {
            "recipe": self.recipe.name,
            "hybridkern": hybridkern.__version__,
            "config": dataclasses.asdict(self.config),
            "data": dataclasses.asdict(self.data),
            "data_sha256": self.data_hash,
        }
        if self.model is not None:
            values["model"] = self.model
        write_sealed_json(folder.config, values)

    @classmethod
    def read(cls, folder: RunFolder) -> RunRecord:
        """Reads ``config.json``.

        Raises:
            RecipeError: the folder is no run folder, or the file is damaged.
        """
        if not folder.config.exists():
            raise RecipeError(f"{folder.root} is no run folder: it has no config.json")
        try:
            values, sealed = read_json(folder.config)
            unknown = set(values) - _KEYS
            if unknown:
                raise RecipeError(f"this version knows no '{unknown.pop()}'")
            recipe = get_recipe(values["recipe"])
            config = type(recipe.config).from_json(values["config"])
            return cls(
                recipe, config, DataShape.from_json(values["data"]), _hash_or_none(values["data_sha256"]), sealed
            )
        except DamagedFileError:
            raise
        except RecipeError as error:
            raise DamagedFileError(f"{folder.config}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedFileError(f"{folder.config}: damaged ({type(error).__name__}: {one_line(error)})") from error


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and all(is_temporary(path) for path in folder.iterdir())


def _hash_or_none(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"data_sha256: got {value!r}, expected text")
    return value


def hash_of(files: list[Path], algorithm: str = "sha256") -> str | None:
    """The checksum, in hexadecimal digits, of the contents of all files, one after the other; ``None`` for none.

    Raises:
        DataError: a file cannot be read.
    """
    if not files:
        return None
    digest = hashlib.new(algorithm, usedforsecurity=False)
    for path in files:
        try:
            with open(path, "rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({one_line(error)})") from error
    return digest.hexdigest()


def free_folder(recipe: str, runs: Path = Path("runs")) -> Path:
    """``runs/RECIPE``, or the first of ``runs/RECIPE-2``, ``-3``, ... that does not exist yet."""
    path, number = runs / recipe, 1
    while path.exists():
        number += 1
        path = runs / f"{recipe}-{number}"
    return path


def changed_setting(old: Config, new: Config) -> tuple[str, Any, Any] | None:
    """The first setting in which two configurations differ, with both values."""
    for name in old.names():
        if getattr(old, name) != getattr(new, name):
            return name, getattr(old, name), getattr(new, name)
    return None
