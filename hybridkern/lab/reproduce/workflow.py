"""From an experiment's name to its finished folder."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import hybridkern
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.reproduce.budget import Budget
from hybridkern.lab.reproduce.experiment import SOURCES, Experiment, Request, get_experiment
from hybridkern.lab.reproduce.folder import Folder
from hybridkern.lab.reproduce.result import Result
from hybridkern.lab.reproduce.writing import write


@dataclass(frozen=True)
class Reproduction:
    """A finished experiment and the paths of what was written."""

    result: Result
    paths: list[Path]


def reproduce(
    name: str,
    out: Path,
    *,
    minutes: float | None = None,
    seed: int | None = None,
    variant: str | None = None,
    resume: bool = False,
    console: Console | None = None,
    **sources: Path | str | None,
) -> Reproduction:
    """Runs the experiment ``name`` into the folder ``out``.

    Args:
        name: of the experiment.
        out: a folder that does not exist or is empty; with ``resume`` that of an interrupted experiment.
        minutes: wall time of its training; its own default where None.
        seed: of drawn data, weights and order; 0 where None.
        variant: form of the experiment, one of its ``variants``; the first of them where None.
        resume: finished training runs in ``out`` are kept, interrupted ones go on; everything else is done again. What
            is None is then what it was before.
        console: for progress; standard error by default.
        sources: ``data``, ``test_data``, ``data_root`` (paths) and ``ood``, as the experiment takes them.

    Raises:
        RecipeError, DataError: an argument, the folder or the data is unusable; nothing has been written then.
        KeyboardInterrupt: after Ctrl-C; ``out`` holds no table, picture or result, and can be resumed.
    """
    experiment = get_experiment(name)
    given = {key: value for key, value in sources.items() if value is not None}
    for key in given:
        if key not in experiment.sources:
            raise RecipeError(f"--{key.replace('_', '-')}: the experiment '{name}' has no such option")
    folder = Folder(out)
    before = folder.before() if resume else {}
    given = {key: before[key] for key in SOURCES if before.get(key) is not None} | given
    minutes = before.get("minutes", experiment.minutes) if minutes is None else minutes
    seed = before.get("seed", 0) if seed is None else seed
    variant = _variant(experiment, before.get("variant") if variant is None else variant)
    request = Request(Budget(minutes), seed, out, console or Console(stderr=True), variant=variant, **_typed(given))
    loaded = experiment.load(request)
    asked: dict[str, Any] = {"experiment": name, "minutes": minutes, "seed": seed}
    asked |= {"variant": variant} if variant else {}
    asked |= {key: _absolute(key, given) for key in SOURCES}
    with folder.prepared(asked, resume):
        return _run(experiment, request, loaded)


def _variant(experiment: Experiment, asked: str | None) -> str:
    """The form that is run.

    Raises:
        RecipeError: the experiment has no such form.
    """
    known = experiment.variants
    if asked is None:
        return known[0] if known else ""
    if not known:
        raise RecipeError(f"--variant: the experiment '{experiment.name}' has no such option")
    if asked not in known:
        raise RecipeError(f"--variant: got '{asked}', expected one of {', '.join(known)}")
    return asked


def _run(experiment: Experiment, request: Request, loaded: Any) -> Reproduction:
    asked = request.budget
    running = replace(request, budget=Budget(asked.minutes))  # loading took none of it
    result = experiment.run(running, loaded)
    result.conditions.insert(0, f"Budget: {asked.minutes:g} minutes of training; seed {request.seed}.")
    facts = {
        "minutes": asked.minutes,
        "minutes_spent": running.budget.spent,
        "seed": request.seed,
        **({"variant": request.variant} if request.variant else {}),
        "threads": torch.get_num_threads(),
        "versions": {
            "hybridkern": hybridkern.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    return Reproduction(result, write(result, experiment.name, experiment.summary, request.folder, facts))


def _typed(given: dict[str, Path | str]) -> dict[str, Any]:
    return {key: value if key == "ood" else Path(value) for key, value in given.items()}


def _absolute(key: str, given: dict[str, Path | str]) -> str | None:
    """A path that does not depend on the working folder; ``ood`` may be a name instead."""
    value = given.get(key)
    return None if value is None else str(value if key == "ood" and "." not in str(value) else Path(value).resolve())
