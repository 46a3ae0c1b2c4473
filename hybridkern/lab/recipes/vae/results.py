"""Results of a run of a variational autoencoder: the figures of ``metrics.json`` and the plots."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from hybridkern.lab import plots
from hybridkern.lab.data import DataSet
from hybridkern.lab.recipes.evaluation import evaluating
from hybridkern.lab.recipes.images import plots as image_plots
from hybridkern.lab.recipes.images.callbacks import ImageHistory
from hybridkern.lab.recipes.images.evaluation import Scores, score
from hybridkern.lab.recipes.images.results import Results
from hybridkern.lab.recipes.pictures import save_figure
from hybridkern.lab.recipes.vae.config import VAEConfig
from hybridkern.lab.recipes.vae.task import StackedTask, VAETask

_SHOWN = 64
_OF_CLASS = 10
_RECONSTRUCTED = 10
_COLOURS = ("#1f5fa8", "0.55")


def evaluate(task: VAETask, data: DataSet, config: VAEConfig) -> Results:
    """Scores the test part: ``p(y|x)``, and the bound of ``log p(x)`` as the mean over ``draws`` draws of latents."""
    scores = score(task, data.test.x, config.draws)
    right = scores.probabilities.gather(1, data.test.y[:, None]).squeeze(1)
    metrics = {
        "test_error": (scores.probabilities.argmax(1) != data.test.y).double().mean().item(),
        "test_class_nll_nats": -right.clamp(min=1e-300).log().mean().item(),
        "test_entropy_nats": scores.entropy.mean().item(),
        "model": config.model,
    }
    if not isinstance(task, StackedTask):  # whose bound is of the first VAE's latents
        metrics |= _bound(task, scores, config.draws)
    return Results(metrics, scores, None)


def _bound(task: VAETask, scores: Scores, draws: int) -> dict[str, Any]:
    nll = -scores.log_px.mean().item()
    pixels = "pixels black or white" if task.binary else f"grey values 0..{task.grey_levels - 1} as they are"
    return {
        "test_nll_nats": nll,
        "test_bits_per_dim": nll / (task.dim * math.log(2)),
        "nll_convention": f"NLL: an upper bound: minus the bound of log P(x), mean over {draws} draws of the latents; "
        f"{pixels}, D = {task.dim}",
    }


def draw_run(
    folder: Path, task: VAETask, data: DataSet, history: ImageHistory, seed: int, results: Results
) -> list[Path]:
    """Writes the plots of a run into its folder; returns their paths."""
    shape, grey_levels = data.shape, data.grey_levels
    real = task.rows(task.images(data.test.x[:_SHOWN]))
    predicted = results.test.probabilities.argmax(1)
    drawn = {
        "real.png": plots.images(real, shape, grey_levels, f"{len(real)} images of the test part, as the model sees"),
        "samples.png": _of_classes(task, data, seed),
        "reconstructions.png": _reconstructions(task, data),
        "confidence.png": image_plots.confidence(results.test.confidence, predicted == data.test.y),
        "training.png": curves(history),
    }
    return [save_figure(figure, folder / name) for name, figure in drawn.items()]


def _of_classes(task: VAETask, data: DataSet, seed: int) -> Figure:
    """A row of samples for each class; of all classes together where one is too rare among samples."""
    title = "Samples, a class in each row"
    with evaluating(task), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with contextlib.suppress(ValueError):
            rows = torch.stack([task.sample(_OF_CLASS, label=label) for label in range(data.classes)])
            return image_plots.rows_of_images(rows, data.shape, data.grey_levels, title)
        return plots.images(task.sample(_SHOWN), data.shape, data.grey_levels, f"{_SHOWN} samples")


def _reconstructions(task: VAETask, data: DataSet) -> Figure:
    x = data.test.x[:_RECONSTRUCTED]
    with evaluating(task):
        back = task.invert(task.latent(x))
    pair = torch.stack([task.rows(task.images(x)), back])
    return image_plots.rows_of_images(pair, data.shape, data.grey_levels, "Test images, and what their latents expect")


def curves(history: ImageHistory) -> Figure:
    """Error of training and validation, and minus the bound of the validation part, by minutes of training."""
    figure = Figure(figsize=(10.0, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    for values, name, label, colour in (
        (history.validation, "val_error", "validation", _COLOURS[0]),
        (history.training, "error", "training, images with label", _COLOURS[1]),
    ):
        left.plot(np.asarray(values["seconds"]) / 60, values[name], marker=".", color=colour, label=label)
    right.plot(np.asarray(history.validation["seconds"]) / 60, history.validation["val_nll"], marker=".",
               color=_COLOURS[0], label="validation")  # fmt: skip
    for axes, title, unit in (
        (left, "Error", "share of images"),
        (right, "Minus the bound of log p", "nats"),
    ):
        axes.set_title(title)
        axes.set_xlabel("minutes of training")
        axes.set_ylabel(unit)
        image_plots.finish(axes)
    left.set_ylim(bottom=0)
    return figure
