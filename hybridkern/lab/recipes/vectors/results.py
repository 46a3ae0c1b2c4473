"""Results of a run on vectors: the figures of ``metrics.json`` and the plots."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hybridkern.lab.data import DataSet, Split
from hybridkern.lab.recipes.callbacks import History
from hybridkern.lab.recipes.evaluation import draw, evaluating
from hybridkern.lab.recipes.pictures import save_figure
from hybridkern.lab.recipes.vectors import plots
from hybridkern.lab.recipes.vectors.config import VectorConfig
from hybridkern.lab.recipes.vectors.task import Regression, VectorTask

_BATCH = 8192
_ROUND_TRIP = 1000
_NOISE_SEED = 1


@dataclass(frozen=True)
class Scores:
    """Of each row: ``log_py`` and ``log_px`` ``(N,)`` in nats of the data's units, ``predicted`` ``(N,)``."""

    log_py: Tensor
    log_px: Tensor
    predicted: Tensor


@dataclass(frozen=True)
class Results:
    """The figures, and the scores behind them."""

    metrics: dict[str, Any]
    test: Scores


def score(task: VectorTask, split: Split) -> Scores:
    """Scores labelled rows; noise for rounded data depends on nothing else."""
    generator = torch.Generator().manual_seed(_NOISE_SEED)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    with evaluating(task):
        for x, y in zip(split.x.split(_BATCH), split.y.split(_BATCH), strict=True):
            terms = task.terms(x, y)
            parts.append((-terms.class_nll.double(), task.log_px(x, generator).double(), terms.predicted))
    return Scores(*(torch.cat(column) for column in zip(*parts, strict=True)))


def evaluate(task: VectorTask, data: DataSet, config: VectorConfig) -> Results:
    """Scores the test part."""
    scores = score(task, data.test)
    error = task.errors(scores.predicted, data.test.y).double().mean().item()
    figures = {"test_rmse": error**0.5} if isinstance(task, Regression) else {"test_error": error}
    nll = -scores.log_px.mean().item()
    figures |= {"test_class_nll_nats": -scores.log_py.mean().item(), "test_nll_nats": nll}
    x = data.test.x[:_ROUND_TRIP]
    with evaluating(task):
        figures["round_trip_max_abs_error"] = (task.invert(task.latent(x)) - x).abs().max().item()
    return Results(figures | {"objective": task.objective.describe()}, scores)


def draw_run(
    folder: Path, task: VectorTask, data: DataSet, history: History, seed: int, results: Results
) -> list[Path]:
    """Writes the plots of a run into its folder; returns their paths."""
    regression = isinstance(task, Regression)
    figures = {
        "training.png": plots.training(history.curves, history.best, regression),
        "log_px.png": plots.log_densities({"training": score_x(task, data.train.x), "test": results.test.log_px}),
        "samples.png": plots.samples(draw(task, min(len(data.test), 2000), seed), data.test.x),
    }
    return [save_figure(figure, folder / name) for name, figure in figures.items()]


def score_x(task: VectorTask, x: Tensor) -> Tensor:
    """``log p(x)`` ``(N,)`` float64 in nats of the data's units; noise as in :func:`score`."""
    generator = torch.Generator().manual_seed(_NOISE_SEED)
    with evaluating(task):
        return torch.cat([task.log_px(part, generator).double() for part in x.split(_BATCH)])
