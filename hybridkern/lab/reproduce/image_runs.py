"""Training runs of the recipes on images, as experiments use them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.images.config import ImagesConfig
from hybridkern.lab.recipes.images.task import ImageTask
from hybridkern.lab.recipes.recipe import get_recipe
from hybridkern.lab.recipes.workflow import Run, train
from hybridkern.lab.reproduce.experiment import Request

IMAGE_SOURCES = ("data", "test_data", "ood", "data_root")


def source_options(request: Request) -> dict[str, Any]:
    """Where the request says that data lie, as options of a recipe on images."""
    paths = {name: getattr(request, name) for name in ("data", "test_data", "data_root")}
    return {name: None if path is None else str(path) for name, path in paths.items()} | {"ood": request.ood}


def check_sources(
    recipe: str, options: Callable[[Request], Mapping[str, Any]], *, ood: str | None = None
) -> Callable[[Request], None]:
    """An experiment's ``load``: reads the data once, so that their faults are said before anything is written.

    Args:
        recipe: that will read them.
        options: its settings for a request.
        ood: what the other set should be, where the experiment needs one.
    """

    def load(request: Request) -> None:
        found = get_recipe(recipe)
        if ood is not None and request.ood is None:
            raise RecipeError(f"--ood: the experiment needs out-of-distribution data: {ood}, as an .npz file")
        found.load(found.config.updated(recipe, source_options(request) | dict(options(request))))

    return load


def trained(request: Request, recipe: str, label: str, minutes: float, options: Mapping[str, Any]) -> Run:
    """The run ``label`` of an experiment: trained for so many minutes, gone on with, or, if finished, scored again.

    Args:
        request: gives seed, sources of the data, and the folder.
        recipe: a recipe on images.
        label: of the run, and name of its folder.
        minutes: wall time of training.
        options: further settings of the recipe.

    Returns:
        The run; its ``results`` hold the scores of the test part and of the other set.

    Raises:
        RecipeError, DataError: as training does.
        KeyboardInterrupt: after Ctrl-C; the run can be gone on with.
    """
    folder = request.run_folder(label)
    request.say(f"{recipe}: {label}, {minutes:.3g} minutes")
    # the published models are Glows with Glow's own form; the documented figures are those of this form
    settings = {"seed": request.seed, "minutes": minutes, "form": "glow"} | source_options(request) | dict(options)
    return train(recipe, settings, folder, resume=(folder / "config.json").exists(), console=request.console)


def of_images(run: Run) -> tuple[ImageTask, ImagesConfig]:
    """Model and settings of a run of a recipe on images."""
    config = run.record.config
    assert isinstance(run.task, ImageTask) and isinstance(config, ImagesConfig)
    return run.task, config


def described(run: Run) -> str:
    """Model and training of a run in a sentence."""
    _, config = of_images(run)
    metrics = run.metrics
    return (
        f"Glow of {config.levels} levels with {config.steps} steps each, {config.net} networks of width "
        f"{config.hidden}, {config.norm}, {metrics['parameters']} parameters; {config.optimizer}, highest learning "
        f"rate {config.lr:g}, batches of {config.batch_size}, {shifts(config.translation)}, "
        f"{metrics['examples']['train']} training images, networks in {precision_of(metrics)}"
    )


def loss_of(metrics: Mapping[str, Any]) -> str:
    """The loss of a run with the convention of its lambda."""
    return str(metrics["lam_convention"]).removeprefix("loss = ")


def shifts(pixels: int) -> str:
    """How far training images are moved, for a sentence."""
    return f"images shifted by up to {pixels} pixel{'s' if pixels > 1 else ''}" if pixels else "images not shifted"


def precision_of(metrics: Mapping[str, Any]) -> str:
    """The dtype of a run's networks."""
    precision = str(metrics["precision"])
    return {"bf16-mixed": "bfloat16", "32-true": "float32"}.get(precision, precision)
