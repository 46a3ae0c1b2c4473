"""Results of a run on images: the figures of ``metrics.json`` and the plots drawn from the same scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from hybridkern.lab import plots
from hybridkern.lab.data import DataSet
from hybridkern.lab.recipes.evaluation import draw, evaluating
from hybridkern.lab.recipes.images import plots as image_plots
from hybridkern.lab.recipes.images.batches import dequantized, seeded
from hybridkern.lab.recipes.images.callbacks import ImageHistory
from hybridkern.lab.recipes.images.evaluation import Scores, figures, ood_figures, score
from hybridkern.lab.recipes.images.sources import Scored, load_ood
from hybridkern.lab.recipes.images.task import ImageTask
from hybridkern.lab.recipes.images.training_config import TrainingConfig
from hybridkern.lab.recipes.pictures import save_figure

_SAMPLES = 64
_RECONSTRUCTED = 10
_INTERPOLATED = 6
_POINTS = 9
_NOISE_SEED = 2


@dataclass(frozen=True)
class Results:
    """The scores behind the figures: of the test part, and of another set ``other`` where one was given."""

    metrics: dict[str, Any]
    test: Scores
    ood: Scores | None
    other: Scored | None = None


def evaluate(task: ImageTask, data: DataSet, config: TrainingConfig) -> Results:
    """Scores the test part, and the other set of the configuration.

    Raises:
        RecipeError, DataError: the other set cannot be used.
    """
    ood = None if config.ood is None else load_ood(config.ood, config.data_root, data.shape, config.ood_size)
    test = score(task, data.test.x, config.draws)
    metrics = figures(task, test, data.test, config.draws)
    if ood is None:
        return Results(metrics, test, None)
    outside = score(task, ood.x, config.draws)
    return Results(metrics | ood_figures(task, test, outside, ood.name), test, outside, ood)


def draw_run(
    folder: Path, task: ImageTask, data: DataSet, history: ImageHistory, seed: int, results: Results
) -> list[Path]:
    """Writes the plots of a run into its folder; returns their paths."""
    shape, grey_levels = data.shape, data.grey_levels
    real, samples = data.test.x[:_SAMPLES].float(), draw(task, _SAMPLES, seed)
    predicted = results.test.probabilities.argmax(1)
    drawn = {
        "real.png": plots.images(real, shape, grey_levels, f"{len(real)} real images of the test part"),
        "samples.png": plots.images(samples, shape, grey_levels, f"{_SAMPLES} samples from the model"),
        "reconstructions.png": _reconstructions(task, data),
        **({"interpolations.png": _interpolations(task, data)} if len(data.test) > 1 else {}),
        "log_px.png": histogram(task, results),
        "confidence.png": image_plots.confidence(results.test.confidence, predicted == data.test.y),
        "training.png": image_plots.training(
            history.training, history.validation, 1 / (task.dim * math.log(2))
        ),
    }  # fmt: skip
    return [save_figure(figure, folder / name) for name, figure in drawn.items()]


def draw_ood(folder: Path, task: ImageTask, results: Results) -> list[Path]:
    """Writes the histogram of the likelihoods of another set; returns its path."""
    return [save_figure(histogram(task, results), folder / f"log_px_{results.metrics['ood']}.png")]


def histogram(task: ImageTask, results: Results) -> Figure:
    """Likelihoods of the test part, and of the other set."""
    scale = -1 / (task.dim * math.log(2))
    outside = None if results.ood is None else results.ood.log_px * scale
    metrics = results.metrics
    return image_plots.log_likelihoods(
        results.test.log_px * scale, outside, metrics.get("ood", ""), metrics.get("ood_auroc")
    )


def _reconstructions(task: ImageTask, data: DataSet) -> Figure:
    """Test images above what the flow makes of them there and back; dequantization's noise stays in."""
    x = task.seen(dequantized(data.test.x[:_RECONSTRUCTED], seeded(_NOISE_SEED)))
    with evaluating(task):
        back = task.invert(task.latent(x))
    error = (back - x).abs().max().item()
    title = f"Test images, and from their latents (largest error {error:.1e} grey values)"
    return image_plots.rows_of_images(torch.stack([x, back]), data.shape, data.grey_levels, title)


def _interpolations(task: ImageTask, data: DataSet) -> Figure:
    """A row for each pair of test images: the images of the straight line between their latents."""
    count = min(_INTERPOLATED, len(data.test) // 2)
    # far apart in the file: neighbours may be parts of one photograph
    rows = torch.linspace(0, len(data.test) - 1, 2 * count).long()
    x = dequantized(data.test.x[rows], seeded(_NOISE_SEED))
    with evaluating(task):
        start, end = task.latent(x).chunk(2)
        line = [task.invert(torch.lerp(start, end, weight)) for weight in torch.linspace(0, 1, _POINTS).tolist()]
    title = "Straight lines between the latents of two test images"
    return image_plots.rows_of_images(torch.stack(line, 1), data.shape, data.grey_levels, title)
