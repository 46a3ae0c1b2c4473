"""The folder of one run: what lies where, and whether a run may begin or go on there."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hybridkern
from hybridkern.lab.recipes.config import Config
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.files import read_json, write_json
from hybridkern.lab.recipes.recipe import DataShape, Recipe, get_recipe


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

    @property
    def checkpoints(self) -> Path:
        """Where ``best.ckpt`` and ``last.ckpt`` lie."""
        return self.root / "checkpoints"

    def prepare_new(self) -> None:
        """Makes the folder.

        Raises:
            RecipeError: it holds something already, or cannot be written to.
        """
        try:
            if self.metrics.exists():
                raise RecipeError(f"--out: {self.root} holds a finished run; choose another folder, or --resume it")
            if self.config.exists():
                raise RecipeError(f"--out: {self.root} holds an unfinished run; choose another folder, or --resume it")
            if self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir())):
                raise RecipeError(f"--out: {self.root} exists and is no run folder; choose another folder")
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self._require_writable()
        except OSError as error:
            raise RecipeError(f"--out: cannot write to {self.root} ({error.strerror})") from error

    def prepare_resumed(self) -> None:
        """Raises RecipeError where there is no run to go on with, or it cannot be written to."""
        if not self.config.exists():
            raise RecipeError(f"--resume: {self.root} holds no run to go on with")
        try:
            self.checkpoints.mkdir(exist_ok=True)
            self._require_writable()
        except OSError as error:
            raise RecipeError(f"--out: cannot write to {self.root} ({error.strerror})") from error

    def _require_writable(self) -> None:
        with tempfile.TemporaryFile(dir=self.checkpoints):
            pass


@dataclass(frozen=True)
class RunRecord:
    """What ``config.json`` holds."""

    recipe: Recipe
    config: Config
    data: DataShape
    data_hash: str | None

    def write(self, folder: RunFolder) -> None:
        """Writes ``config.json``."""
        values = {
            "recipe": self.recipe.name,
            "hybridkern": hybridkern.__version__,
            "config": dataclasses.asdict(self.config),
            "data": dataclasses.asdict(self.data),
            "data_sha256": self.data_hash,
        }
        write_json(folder.config, values)

    @classmethod
    def read(cls, folder: RunFolder) -> RunRecord:
        """Reads ``config.json``.

        Raises:
            RecipeError: the folder is no run folder, or the file is damaged.
        """
        if not folder.config.exists():
            raise RecipeError(f"{folder.root} is no run folder: it has no config.json")
        try:
            values = read_json(folder.config)
            recipe = get_recipe(values["recipe"])
            config = type(recipe.config).from_json(values["config"])
            shape = values["data"] | {"shape": tuple(values["data"]["shape"])}
            return cls(recipe, config, DataShape(**shape), values["data_sha256"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecipeError(f"{folder.config}: damaged ({error})") from error


def hash_of(files: list[Path]) -> str | None:
    """SHA-256 of the contents of all files, one after the other; ``None`` for none."""
    if not files:
        return None
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
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
