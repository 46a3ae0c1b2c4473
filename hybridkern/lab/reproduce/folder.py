"""The folder of one reproduction: ``experiment.json`` from the start, ``results.json`` once it is finished."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.files import read_json, write_json


class Folder:
    """Where an experiment writes.

    Args:
        root: need not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked = root / "experiment.json"
        self.results = root / "results.json"

    def prepare(self, asked: dict[str, Any], resume: bool) -> None:
        """Makes the folder and writes down what was ``asked``, or checks that it is what is to be gone on with.

        Raises:
            RecipeError: it holds something already, holds another experiment, or cannot be written to.
        """
        try:
            if resume:
                self._require_same(asked)
            elif self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir())):
                state = "holds an experiment" if self.asked.exists() else "exists and is no folder of an experiment"
                hint = ", or --resume it" if self.asked.exists() and not self.results.exists() else ""
                raise RecipeError(f"--out: {self.root} {state}; choose another folder{hint}")
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
            write_json(self.asked, asked)
        except OSError as error:
            raise RecipeError(f"--out: cannot write to {self.root} ({error.strerror})") from error

    def before(self) -> dict[str, Any]:
        """What was asked of the experiment that is to be gone on with.

        Raises:
            RecipeError: the folder holds none, or its record is damaged.
        """
        if not self.asked.exists():
            raise RecipeError(f"--resume: {self.root} holds no experiment to go on with")
        try:
            before = read_json(self.asked)
        except ValueError as error:
            raise RecipeError(f"{self.asked}: damaged ({error})") from error
        return before

    def _require_same(self, asked: dict[str, Any]) -> None:
        before = self.before()
        if self.results.exists():
            raise RecipeError(f"--resume: the experiment in {self.root} is finished")
        for name, value in asked.items():
            if before.get(name) != value:
                flag = "NAME" if name == "experiment" else f"--{name.replace('_', '-')}"
                raise RecipeError(f"{flag}: got {value}, but what is to be resumed has {before.get(name)}")
