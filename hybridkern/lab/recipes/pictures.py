"""Draws the plots of a run into its folder."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from hybridkern.lab import plots
from hybridkern.lab.data import DataSet
from hybridkern.lab.recipes.callbacks import History
from hybridkern.lab.recipes.evaluation import draw
from hybridkern.lab.recipes.files import replacing
from hybridkern.lab.recipes.task import Task

_DPI = 144
_SAMPLES = 64
_SIDE_BY_SIDE = 36


def draw_run(folder: Path, task: Task, data: DataSet, history: History, seed: int) -> list[Path]:
    """Writes real images, samples, the two validation curves, and all of them side by side; returns their paths."""
    real, samples = data.test.x[:_SAMPLES], draw(task, _SAMPLES, seed)
    errors, nlls = history.curves["val_error"], history.curves["val_nll"]
    figures = {
        "real.png": plots.images(real, data.shape, data.grey_levels, f"{len(real)} real images of the test part"),
        "samples.png": plots.images(samples, data.shape, data.grey_levels, f"{_SAMPLES} samples from the model"),
        "validation_error.png": plots.curve(errors, history.best, "error"),
        "validation_nll.png": plots.curve(nlls, history.best, "nll"),
        "overview.png": plots.overview(
            real[:_SIDE_BY_SIDE], samples[:_SIDE_BY_SIDE], data.shape, data.grey_levels, errors, nlls, history.best
        ),
    }
    return [save_figure(figure, folder / name) for name, figure in figures.items()]


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes a figure in the format of the path's suffix, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, bbox_inches="tight")
    return path
