"""The shape of an experiment and the list of those there are."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.reproduce.budget import Budget
from hybridkern.lab.reproduce.result import Result

# One line per experiment. Its module holds EXPERIMENT and is imported only when that experiment is run.
_MODULES: dict[str, str] = {
    "toy-regression": "hybridkern.lab.reproduce.toy_regression",
    "half-moons": "hybridkern.lab.reproduce.half_moons",
    "flights": "hybridkern.lab.reproduce.flights",
    "mnist": "hybridkern.lab.reproduce.mnist",
    "mnist-semi": "hybridkern.lab.reproduce.mnist_semi",
    "svhn": "hybridkern.lab.reproduce.svhn",
    "digits": "hybridkern.lab.reproduce.digits",
    "ood-failure": "hybridkern.lab.reproduce.ood_failure",
    "digits-vae": "hybridkern.lab.reproduce.digits_vae",
    "vae-mnist": "hybridkern.lab.reproduce.vae_mnist",
    "residual-toy": "hybridkern.lab.reproduce.residual_toy",
    "residual-mnist": "hybridkern.lab.reproduce.residual_mnist",
    "codec": "hybridkern.lab.reproduce.codec",
}
SOURCES = ("data", "test_data", "ood", "data_root")
"""Options that say where data lie; an experiment names those it takes."""


@dataclass(frozen=True)
class Request:
    """What an experiment is asked for.

    Attributes:
        budget: of the training; its clock starts with the run.
        seed: of data that are drawn, weights and order.
        folder: for runs of recipes that :meth:`run_folder` hands out; the result is written by the workflow.
        data, test_data, data_root: where data lie; None where not given.
        ood: path or name of another set to score.
        console: for progress.
        variant: which form of the experiment, one of its ``variants``; empty where it has none.
    """

    budget: Budget
    seed: int
    folder: Path
    console: Console
    data: Path | None = None
    test_data: Path | None = None
    ood: str | None = None
    data_root: Path | None = None
    variant: str = ""

    def run_folder(self, label: str) -> Path:
        """The folder of one of the experiment's training runs; where it exists already, the run is to be resumed."""
        return self.folder / "runs" / label

    def say(self, text: str) -> None:
        """A line on the console, about what is done next."""
        self.console.print(text, highlight=False, markup=False)


@dataclass(frozen=True)
class Experiment:
    """A named experiment.

    Attributes:
        name: as in ``hybridkern reproduce NAME``.
        summary: what it is, in one or two sentences; the head of its table.
        minutes: budget where none is asked for.
        run: trains and measures, given the request and what ``load`` returned. Ctrl-C may come at any time.
        load: reads the data, and raises RecipeError or DataError where they cannot be used: before anything is written.
        sources: the options of ``SOURCES`` that it takes.
        variants: forms of the experiment that can be asked for, the usual one first; none, mostly.
    """

    name: str
    summary: str
    minutes: float
    run: Callable[[Request, Any], Result]
    load: Callable[[Request], Any] = lambda request: None
    sources: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()


def experiment_names() -> list[str]:
    """The names of all experiments."""
    return list(_MODULES)


def get_experiment(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        RecipeError: there is none.
    """
    if name not in _MODULES:
        raise RecipeError(f"NAME: got '{name}', expected one of {', '.join(_MODULES)}")
    experiment: Experiment = importlib.import_module(_MODULES[name]).EXPERIMENT
    return experiment
