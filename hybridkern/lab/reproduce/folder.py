"""The folder of one reproduction: ``experiment.json`` from the start, ``results.json`` once it is finished."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hybridkern._temporary import is_temporary
from hybridkern.lab.recipes.errors import DamagedFileError, RecipeError
from hybridkern.lab.recipes.files import read_json, remove_leftovers, write_sealed_json
from hybridkern.lab.recipes.lock import locked

# What experiment.json holds, by the types that JSON gives.
_KINDS = {"experiment": (str,), "minutes": (int, float), "seed": (int,), "variant": (str,)} | dict.fromkeys(
    ("data", "test_data", "ood", "data_root"), (str,)
)


class Folder:
    """Where an experiment writes.

    Args:
        root: need not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked = root / "experiment.json"
        self.results = root / "results.json"

    @contextmanager
    def prepared(self, asked: dict[str, Any], resume: bool) -> Iterator[None]:
        """Makes the folder and writes down what was ``asked``, or checks that it is what is to be gone on with.

        Holds the folder for the block.

        Raises:
            RecipeError: it holds something already, holds another experiment, cannot be written to, or another process
                is at work in it.
        """
        with ExitStack() as lock:
            try:
                if self.root.exists() and not self.root.is_dir():
                    raise RecipeError(
                        f"--out: {self.root} exists and is no folder of an experiment; choose another folder"
                    )
                self.root.mkdir(parents=True, exist_ok=True)
                lock.enter_context(locked(self.root))
                if resume:
                    self._require_same(asked)
                elif not all(map(is_temporary, self.root.iterdir())):
                    state = "holds an experiment" if self.asked.exists() else "exists and is no folder of an experiment"
                    hint = ", or --resume it" if self.asked.exists() and not self.results.exists() else ""
                    raise RecipeError(f"--out: {self.root} {state}; choose another folder{hint}")
                with tempfile.TemporaryFile(dir=self.root):
                    pass
            except OSError as error:
                raise RecipeError(f"--out: cannot write to {self.root} ({error.strerror})") from error
            remove_leftovers(self.root)
            write_sealed_json(self.asked, asked)
            yield

    def before(self) -> dict[str, Any]:
        """What was asked of the experiment that is to be gone on with.

        Raises:
            RecipeError: the folder holds none, or its record is damaged.
        """
        if not self.asked.exists():
            if self._only_begun():
                return {}
            raise RecipeError(f"--resume: {self.root} holds no experiment to go on with")
        before, _ = read_json(self.asked)
        for name, kinds in _KINDS.items():
            if before.get(name) is not None and type(before[name]) not in kinds:
                raise DamagedFileError(f"{self.asked}: damaged ({name}: got {before[name]!r})")
        return before

    def _only_begun(self) -> bool:
        """Whether a process was killed between making the folder and writing to it."""
        return self.root.is_dir() and all(map(is_temporary, self.root.iterdir()))

    def _require_same(self, asked: dict[str, Any]) -> None:
        before = self.before()
        if self.results.exists():
            raise RecipeError(f"--resume: the experiment in {self.root} is finished")
        if not before:
            return
        for name, value in asked.items():
            if before.get(name) != value:
                flag = "NAME" if name == "experiment" else f"--{name.replace('_', '-')}"
                raise RecipeError(f"{flag}: got {value}, but what is to be resumed has {before.get(name)}")
