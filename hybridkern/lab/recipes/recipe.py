"""The shape of a recipe and the list of those there are."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hybridkern.lab.data import DataSet
from hybridkern.lab.recipes.config import Config
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.task import Task

# One line per recipe. Its module holds RECIPE and is imported only when that recipe is used.
_MODULES = {
    "cifar10": "hybridkern.lab.recipes.cifar10",
    "digits": "hybridkern.lab.recipes.digits",
    "digits-tutorial": "hybridkern.lab.recipes.digits_tutorial",
    "digits-vae": "hybridkern.lab.recipes.digits_vae",
    "mnist": "hybridkern.lab.recipes.mnist",
    "mnist-vae": "hybridkern.lab.recipes.mnist_vae",
    "svhn": "hybridkern.lab.recipes.svhn",
    "density": "hybridkern.lab.recipes.density.recipe",
    "toy-density": "hybridkern.lab.recipes.density.toy",
    "flights": "hybridkern.lab.recipes.flights",
    "cubic": "hybridkern.lab.recipes.cubic",
    "moons": "hybridkern.lab.recipes.moons",
}


@dataclass(frozen=True)
class DataShape:
    """What a model's layers depend on; written to ``config.json`` so that it can be rebuilt without the data."""

    shape: tuple[int, ...]
    classes: int
    grey_levels: int
    dim: int

    @classmethod
    def of(cls, data: DataSet) -> DataShape:
        """The shape of a data set."""
        return cls(data.shape, data.classes, data.grey_levels, data.dim)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> DataShape:
        """What ``dataclasses.asdict`` wrote; raises ValueError, TypeError or KeyError where that cannot be."""
        grey_levels = values["grey_levels" if "grey_levels" in values else "levels"]  # "levels": version 0.1
        shape = cls(tuple(values["shape"]), values["classes"], grey_levels, values["dim"])
        numbers = (*shape.shape, shape.classes + 1, shape.grey_levels + 1, shape.dim)
        if any(type(number) is not int or number < 1 for number in numbers) or math.prod(shape.shape) != shape.dim:
            raise ValueError(f"data: got {values}, expected the shape of examples")
        return shape


@dataclass(frozen=True)
class Recipe:
    """A named experiment.

    Attributes:
        name: as in ``hybridkern train NAME``.
        summary: one line for the help.
        config: its settings at their first values.
        load: reads the data of a configuration.
        build: makes the model of a configuration, with torch's global generator.
        likelihood: whether ``log p(x)`` of a configuration's model sums to 1 over all ``x``.
        published: figures to set beside the result, by the keys of ``metrics.json``, and where they are from.
        check: raises where the data files of a new run's configuration do not go together, which an older run's may.
        files: the data files of a configuration, none for a recipe's own data.
        fetch: downloads them, where the recipe can.
        fit: trains, see :func:`hybridkern.lab.recipes.training.fit`, which ``None`` means.
        evaluate: figures of ``(task, data, config)`` on the test part: an object whose ``metrics`` go into
            ``metrics.json``; ``None`` means :func:`hybridkern.lab.recipes.evaluation.evaluate`.
        draw: writes the plots of ``(folder, task, data, history, seed, results)``, the last being what ``evaluate``
            returned; ``None`` means :func:`hybridkern.lab.recipes.pictures.draw_run`.
        sampled: in which form samples are written unless asked otherwise: ``"png"``, or ``"csv"`` for vectors.
        draw_ood: writes the plots of ``(folder, task, results)`` for another set of data, where the recipe scores one.
    """

    name: str
    summary: str
    config: Config
    load: Callable[[Any], DataSet]
    build: Callable[[Any, DataShape], Task]
    likelihood: Callable[[Any], bool] = lambda config: True
    published: Callable[[Any], Published] = lambda config: Published()
    check: Callable[[Any], None] = lambda config: None
    files: Callable[[Any], list[Path]] = lambda config: [] if config.data is None else [Path(config.data)]
    fetch: Callable[[Any], None] | None = None
    fit: Callable[..., Any] | None = None
    evaluate: Callable[[Any, DataSet, Any], Any] | None = None
    draw: Callable[..., list[Path]] | None = None
    sampled: str = "png"
    draw_ood: Callable[[Path, Any, Any], list[Path]] | None = None


@dataclass(frozen=True)
class Published:
    """Figures of somebody else's run of a comparable experiment: text by the keys of ``metrics.json``."""

    source: str = ""
    figures: dict[str, str] = field(default_factory=dict)


def recipe_names() -> list[str]:
    """The names of all recipes."""
    return list(_MODULES)


def get_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        RecipeError: there is none.
    """
    if name not in _MODULES:
        raise RecipeError(f"RECIPE: got '{name}', expected one of {', '.join(_MODULES)}")
    recipe: Recipe = importlib.import_module(_MODULES[name]).RECIPE
    return recipe
