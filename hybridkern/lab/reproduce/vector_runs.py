"""Training runs of the recipes on vectors, as experiments use them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridkern.lab.recipes.vectors.config import VectorConfig
from hybridkern.lab.recipes.workflow import Run, train
from hybridkern.lab.reproduce.experiment import Request


def trained(request: Request, recipe: str, label: str, minutes: float, options: Mapping[str, Any]) -> Run:
    """The run ``label`` of an experiment: trained, gone on with, or, if finished, scored again.

    Args:
        request: gives seed and folder.
        recipe: on vectors.
        label: of the run, and name of its folder.
        minutes: the most wall time of its training.
        options: further settings of the recipe.

    Raises:
        RecipeError, DataError: as training does.
        KeyboardInterrupt: after Ctrl-C; the run can be gone on with.
    """
    folder = request.run_folder(label)
    request.say(f"{recipe}: {label}, at most {minutes:.3g} minutes")
    settings = {"seed": request.seed, "minutes": minutes, **options}
    return train(recipe, settings, folder, resume=(folder / "config.json").exists(), console=request.console)


def of_vectors(run: Run) -> VectorConfig:
    """Settings of a run of a recipe on vectors."""
    assert isinstance(run.record.config, VectorConfig)
    return run.record.config


def described(run: Run) -> str:
    """Model and training of a run in a sentence."""
    config, metrics = of_vectors(run), run.metrics
    steps = metrics["epochs"] * -(-metrics["examples"]["train"] // config.batch_size)
    return (
        f"{metrics['parameters']} parameters, {config.optimizer}, learning rate {config.lr:g}, batches of "
        f"{config.batch_size}, {steps} steps; weights kept: epoch {metrics['best_epoch']} of "
        f"{metrics['epochs']}, {'the last one' if config.keep == 'last' else 'the one of the lowest validation loss'}"
    )


def out_of_time(run: Run) -> list[str]:
    """A sentence where the clock, not the settings, ended a run."""
    config, metrics = of_vectors(run), run.metrics
    patient = config.keep == "last" or metrics["epochs"] - metrics["best_epoch"] <= config.patience
    stopped = metrics["epochs"] < config.epochs and patient
    return [f"The time limit ended training after {metrics['epochs']} of {config.epochs} epochs."] if stopped else []
