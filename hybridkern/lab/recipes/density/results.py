"""Results of a run on a table: the figures of ``metrics.json`` and the plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import multivariate_normal
from torch import Tensor

from hybridkern.lab.data import DataSet
from hybridkern.lab.recipes.callbacks import History
from hybridkern.lab.recipes.density import plots
from hybridkern.lab.recipes.density.config import DensityConfig
from hybridkern.lab.recipes.density.task import DensityTask
from hybridkern.lab.recipes.evaluation import draw, evaluating
from hybridkern.lab.recipes.pictures import save_figure
from hybridkern.lab.recipes.vectors import plots as vector_plots

_BATCH = 1024
_ROUND_TRIP = 1000
_MOST_SAMPLES = 5000
_NOISE_SEED = 2


@dataclass(frozen=True)
class TableSet(DataSet):
    """The parts of a table with the names of its columns."""

    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Results:
    """The figures, and ``log p(x)`` ``(N,)`` float64 of the test part."""

    metrics: dict[str, Any]
    log_px: Tensor


def score(task: DensityTask, x: Tensor) -> Tensor:
    """``log p(x)`` ``(N,)`` float64 in nats of the data's units; noise depends on nothing else."""
    generator = torch.Generator().manual_seed(_NOISE_SEED)
    with evaluating(task):
        return torch.cat([task.log_px(part, generator, exact=True) for part in x.split(_BATCH)])


def evaluate(task: DensityTask, data: DataSet, config: DensityConfig) -> Results:
    """Scores the test part, and a Gaussian of the training rows' mean and covariance beside it."""
    assert isinstance(data, TableSet)
    log_px = score(task, data.test.x)
    names = list(data.names)
    noisy = [name for name, cell in zip(names, task.cell.tolist(), strict=True) if cell]
    convention = "NLL: mean of -log p(x) over the test rows, in nats of the data's own units"
    if noisy:
        convention += f"; rounded columns with uniform noise as wide as their step: {', '.join(noisy)}"
    x = data.test.x[:_ROUND_TRIP]
    with evaluating(task):
        error = (task.standardized(task.invert(task.latent(x))) - task.standardized(x)).abs().max().item()
    return Results(
        {
            "test_nll_nats": -log_px.mean().item(),
            "test_nll_standard_error": standard_error(log_px),
            "gaussian_nll_nats": gaussian_nll(task, data),
            "nll_convention": convention,
            "round_trip_max_error_deviations": error,
            "flow": config.flow,
            "columns": names,
            "steps_of_columns": task.cell.tolist(),
        },
        log_px,
    )


def standard_error(values: Tensor) -> float | None:
    """Of the mean of ``values`` ``(N,)``; ``None`` of a single one."""
    return values.std().item() / len(values) ** 0.5 if len(values) > 1 else None


def gaussian_nll(task: DensityTask, data: DataSet) -> float:
    """Mean ``-log p(x)`` of the test part under a Gaussian of the mean and covariance of the training rows."""
    rng = np.random.default_rng(_NOISE_SEED)
    cell = task.cell.numpy()
    train, test = (part.x.numpy() + cell * rng.random(part.x.shape) for part in (data.train, data.test))
    center, scale = task.center.numpy(), task.scale.numpy()
    train, test = (train - center) / scale, (test - center) / scale
    covariance = np.atleast_2d(np.cov(train.T))
    log_p = multivariate_normal(train.mean(0), covariance, allow_singular=True).logpdf(test)
    return float(np.log(scale).sum() - np.mean(log_p))


def draw_run(
    folder: Path, task: DensityTask, data: TableSet, history: History, seed: int, results: Results
) -> list[Path]:
    """Writes the plots of a run into its folder; returns their paths."""
    # training rows are in no order; the test part of a file may be
    real = torch.cat([data.train.x, data.validation.x, data.test.x])[:_MOST_SAMPLES]
    samples = draw(task, len(real), seed)
    figures = {
        "corner.png": plots.corner(real.numpy(), samples.numpy(), data.names),
        "training.png": plots.training(history.training, history.curves["val_nll"], history.best),
        "log_px.png": vector_plots.log_densities(
            {"training": score(task, data.train.x[:_MOST_SAMPLES]), "test": results.log_px}
        ),
    }
    return [save_figure(figure, folder / name) for name, figure in figures.items()]


def as_csv(x: np.ndarray, names: Sequence[str]) -> str:
    """Rows ``(n, D)`` as comma-separated text with a line of names.

    15 digits: the last one or two of float64 would show its roundings, and fewer would move large numbers off their
    grid.
    """
    quoted = ['"' + name.replace('"', '""') + '"' if set(name) & set(',"\n\r') else name for name in names]
    return "\n".join([",".join(quoted), *(",".join(f"{value:.15g}" for value in row) for row in x)]) + "\n"
