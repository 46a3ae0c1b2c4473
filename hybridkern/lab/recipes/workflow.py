"""From a recipe's name to a finished run folder, and back from a run folder to its model."""

from __future__ import annotations

import dataclasses
import math
import platform
from contextlib import AbstractContextManager, ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load

import hybridkern
from hybridkern._saved.files import describe
from hybridkern._saved.seals import seal_tensors
from hybridkern.lab.archive import DataError, one_line
from hybridkern.lab.data import DataSet
from hybridkern.lab.recipes.checkpoints import has_any, say, seal_all
from hybridkern.lab.recipes.config import Config
from hybridkern.lab.recipes.device import CPU, chosen, follows, placed, require_processes
from hybridkern.lab.recipes.errors import DamagedFileError, RecipeError
from hybridkern.lab.recipes.evaluation import evaluate
from hybridkern.lab.recipes.files import read_json, write_durably, write_sealed_json
from hybridkern.lab.recipes.pictures import draw_run
from hybridkern.lab.recipes.recipe import DataShape, Recipe, get_recipe
from hybridkern.lab.recipes.report import notes, result_table
from hybridkern.lab.recipes.run_folder import RunFolder, RunRecord, changed_setting, hash_of
from hybridkern.lab.recipes.task import Task
from hybridkern.lab.recipes.training import fit

_PATHS = ("data", "data_root", "test_data", "ood", "first")
_LENGTHS = ("epochs", "minutes")


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model with what it was trained from.

    Attributes:
        record: recipe, settings and shape of the data.
        task: the model of the best epoch.
        metrics: the content of ``metrics.json``.
        pictures: paths of the plots.
        results: what the recipe's ``evaluate`` returned: the scores behind the figures, where it has them.
    """

    record: RunRecord
    task: Task
    metrics: dict[str, Any]
    pictures: list[Path]
    results: Any = None


def train(
    name: str,
    options: dict[str, Any],
    out: Path,
    *,
    resume: bool = False,
    download: bool = False,
    console: Console | None = None,
    extra: tuple[Callback, ...] = (),
) -> Run:
    """Trains the recipe ``name`` with ``options`` (settings by name; ``None`` means not given) into the folder ``out``.

    Args:
        resume: go on with the run in ``out`` from its last complete epoch. A finished one goes on where ``options``
            give it more ``epochs`` or ``minutes``, and is only evaluated again otherwise.
        download: fetch the recipe's data files where they are missing.
        console: where the progress line goes; standard error by default.
        extra: further Lightning callbacks.

    Where torchrun or SLURM has started several processes, the first one keeps the folder; the others train with it, and
    give a run without figures.

    Raises:
        RecipeError: an option, the folder or the data is unusable, or another process is at work in the folder; nothing
            has been written then. A file that cannot be written, later: what was written before can be resumed.
        DataError: the data file is unusable; nothing has been written then.
        KeyboardInterrupt: after Ctrl-C; the folder can be resumed.
    """
    recipe, folder = get_recipe(name), RunFolder(out)
    console = console or Console(stderr=True)
    with ExitStack() as held:
        before = None
        if resume:
            if not follows():
                held.enter_context(folder.resumed())
            before = RunRecord.read(folder) if folder.config.exists() else None
        if before is None:
            config = recipe.config.updated(name, _absolute(options))
            recipe.check(config)
        else:
            config = _resumed_config(recipe, before, options)
        chosen(config.device)
        require_processes(getattr(config, "devices", 1), getattr(config, "nodes", 1))
        if download:
            _fetch(recipe, config)
        data = recipe.load(config)
        record = RunRecord(recipe, config, DataShape.of(data), hash_of(recipe.files(config)))
        if before is not None:
            _require_same_data(before, record)
        torch.manual_seed(config.seed)
        task = recipe.build(config, record.data)
        with _computing(task, config):
            task.initialize(data.train.x, data.train.y)
        if not resume and not follows():
            held.enter_context(folder.new())
        elif before is not None and not before.sealed and not follows():
            seal_all(folder.checkpoints)
        if resume and folder.metrics.exists() and not follows():
            _go_on(folder, before, record, console)
        if not follows():
            dataclasses.replace(record, model=_described(task)).write(folder)
        history = (recipe.fit or fit)(task, data, config, folder.checkpoints, console=console, extra=extra)
        if follows():
            return Run(record, task, {}, [])
        return _finish(folder, record, task, data, history, console)


def _described(task: Task) -> dict[str, Any] | None:
    """What ``hybridkern.load`` builds the task's model from; ``None`` for one that only its recipe can build."""
    name = "model" if hasattr(task, "model") else "flow"
    try:
        return describe(getattr(task, name), prefix=f"{name}.")
    except (TypeError, ValueError, AttributeError):
        return None


def _go_on(folder: RunFolder, before: RunRecord | None, record: RunRecord, console: Console) -> None:
    """A finished run that is to train longer is unfinished again, from before its settings change on.

    Raises:
        RecipeError: it has no checkpoint any more, so that it would be trained from the start, and its model replaced.
    """
    if not has_any(folder.checkpoints):
        raise RecipeError(
            f"--resume: {folder.root} is finished, and holds no checkpoint to go on from any more; 'hybridkern "
            f"evaluate' evaluates it again. To train it from the start, remove {folder.metrics.name} too"
        )
    if before is not None and before.config != record.config:
        folder.metrics.unlink(missing_ok=True)
    else:
        say(console, f"{folder.root}: finished already, and evaluated again; to go on, give more --epochs or --minutes")


def _finished(out: Path) -> tuple[RunFolder, RunRecord]:
    folder = RunFolder(out)
    record = RunRecord.read(folder)
    if not folder.metrics.exists():
        raise RecipeError(f"{out} holds an unfinished run; finish it with --resume")
    return folder, record


def load_run(out: Path) -> tuple[RunRecord, Task]:
    """The settings and the trained model of a finished run folder.

    Raises:
        RecipeError: no run folder, an unfinished run, or damaged files.
    """
    folder, record = _finished(out)
    content = folder.read_weights(record.sealed)
    try:
        with torch.random.fork_rng(devices=[]):
            task = record.recipe.build(record.config, record.data)
    except (RecipeError, ValueError, TypeError, RuntimeError, MemoryError, OverflowError) as error:
        raise DamagedFileError(
            f"{folder.config}: describes a model that cannot be built ({one_line(error)})"
        ) from error
    try:
        task.load_state_dict(load(content))
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise DamagedFileError(f"{folder.weights}: missing or damaged ({one_line(error)})") from error
    return record, task.eval()


def stored_metrics(out: Path) -> dict[str, Any]:
    """The figures that a finished run was written with.

    Raises:
        RecipeError: no run folder, an unfinished run, or damaged files.
    """
    folder, record = _finished(out)
    metrics, sealed = read_json(folder.metrics)
    if record.sealed and not sealed:
        raise DamagedFileError(f"{folder.metrics}: damaged (its checksum is missing)")
    try:
        result_table("", {"": metrics})
        notes([metrics])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedFileError(f"{folder.metrics}: damaged ({type(error).__name__}: {one_line(error)})") from error
    return metrics


def evaluate_run(out: Path, ood: str | None = None) -> tuple[RunRecord, dict[str, Any], list[Path]]:
    """Evaluates the model of a finished run folder on the test part of its data.

    Args:
        out: the run folder.
        ood: another set to score, for recipes that do; its histogram is the only thing written.

    Returns:
        The settings, the figures, and the paths of plots written.

    Raises:
        RecipeError, DataError: as :func:`load_run`; the data file is gone or has changed, or ``ood`` cannot be used.
    """
    record, task = load_run(out)
    recipe, config = record.recipe, record.config
    if ood is not None:
        config = config.updated(recipe.name, _absolute({"ood": ood}))
    data = recipe.load(config)
    _require_same_data(record, RunRecord(recipe, config, DataShape.of(data), hash_of(recipe.files(config))))
    results = _evaluate(record, task, data, config)
    drawn = recipe.draw_ood(out, task, results) if ood is not None and recipe.draw_ood else []
    return record, results.metrics, drawn


@dataclasses.dataclass(frozen=True)
class _Figures:
    metrics: dict[str, Any]


def _evaluate(record: RunRecord, task: Task, data: DataSet, config: Config) -> Any:
    try:
        if record.recipe.evaluate is not None:
            with _computing(task, config):
                return record.recipe.evaluate(task, data, config)
        return _Figures(evaluate(task, data.test, data.grey_levels))
    except DataError:
        raise
    except ValueError as error:  # the data have been checked: what is out of range now is what the model made of them
        raise RecipeError(f"{data.source}: the model cannot take the test part ({one_line(error)})") from error


def _computing(task: Task, config: Config) -> AbstractContextManager[None]:
    """The task where the run computes, if inputs find it there."""
    elsewhere = not task.brings_inputs or not torch.cuda.is_available()  # trained on another machine, perhaps
    return placed(task, CPU if elsewhere else chosen(config.device))


def _fetch(recipe: Recipe, config: Config) -> None:
    if recipe.fetch is None:
        raise RecipeError(f"--download: the recipe '{recipe.name}' has no such option")
    if getattr(config, "data_root", None) is None:
        raise RecipeError("--download: needs the folder to download to, --data-root DIR")
    recipe.fetch(config)


def _finish(folder: RunFolder, record: RunRecord, task: Task, data: DataSet, history: Any, console: Console) -> Run:
    results = _evaluate(record, task, data, record.config)
    metrics = _writable(results.metrics | _circumstances(record, task, data, history))
    write_durably(folder.weights, seal_tensors({name: value.contiguous() for name, value in task.state_dict().items()}))
    seed = record.config.seed
    try:
        if record.recipe.draw is not None:
            paths = record.recipe.draw(folder.root, task, data, history, seed, results)
        else:
            paths = draw_run(folder.root, task, data, history, seed)
    except (ValueError, ArithmeticError) as error:  # a model whose samples are out of range is still a finished run
        say(console, f"{folder.root}: not all pictures could be drawn ({one_line(error)})")
        paths = []
    metrics = write_sealed_json(folder.metrics, metrics)
    return Run(record, task, metrics, paths, results)


def _writable(value: Any) -> Any:
    """Figures with ``None`` for numbers that are not finite, which JSON has none of."""
    if isinstance(value, dict):
        return {name: _writable(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_writable(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _circumstances(record: RunRecord, task: Task, data: DataSet, history: Any) -> dict[str, Any]:
    config = record.config
    packages = {name: version(name) for name in ("numpy", "scikit-learn")}
    return {
        "valid_likelihood": record.recipe.likelihood(config),
        **history.record(),
        **config.lam_record(data.dim),
        "seed": config.seed,
        "threads": torch.get_num_threads(),
        "parameters": sum(parameter.numel() for parameter in task.parameters()),
        "examples": {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)},
        "data": data.source,
        "backends": {name: status.available for name, status in hybridkern.backends().items()},
        "versions": {
            "hybridkern": hybridkern.__version__,
            "torch": torch.__version__,
            "lightning": lightning.__version__,
            "python": platform.python_version(),
            **packages,
        },
    }


def _resumed_config(recipe: Recipe, record: RunRecord, options: dict[str, Any]) -> Config:
    if record.recipe.name != recipe.name:
        raise RecipeError(f"--resume: the folder holds a run of '{record.recipe.name}', not of '{recipe.name}'")
    config = record.config.updated(recipe.name, _absolute(options))
    before, fixed = record.config, ""
    if config.schedule == "constant" or config.schedule_may_grow:
        before = dataclasses.replace(before, **_longer(before, config))
    elif _longer(before, config):
        fixed = f"; its schedule '{config.schedule}' ends there: begin a new run, or one with --set schedule=constant"
    changed = changed_setting(before, config)
    if changed:
        name, old, new = changed
        hint = fixed if name in _LENGTHS else ""
        given, had = ("none" if value is None else value for value in (new, old))
        raise RecipeError(f"--{name.replace('_', '-')}: got {given}, but the run to resume has {had}{hint}")
    return config


def _longer(old: Config, new: Config) -> dict[str, Any]:
    """Those settings of a run's length that were raised."""
    pairs = {name: (getattr(old, name, None), getattr(new, name, None)) for name in _LENGTHS}
    limits = {name: (before, after) for name, (before, after) in pairs.items() if before != after}
    return {
        name: after
        for name, (before, after) in limits.items()
        if after is None or (name == "minutes" and before is None) or (before is not None and after > before)
    }


def _require_same_data(old: RunRecord, new: RunRecord) -> None:
    if old.data_hash != new.data_hash or old.data != new.data:
        raise RecipeError(f"{new.config.data or 'the data'}: not the data this run was trained on")


def _absolute(options: dict[str, Any]) -> dict[str, Any]:
    """The options with the paths of files independent of the working folder; ``ood`` may be a name instead."""
    paths = {name: options[name] for name in _PATHS if options.get(name) is not None}
    named = {name: str(Path(path).resolve()) for name, path in paths.items() if name != "ood" or "." in path}
    return options | named
