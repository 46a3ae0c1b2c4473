"""Experiment ``half-moons``: a few labels, with and without unlabelled points."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridkern.lab.data import DataSet
from hybridkern.lab.recipes.evaluation import evaluating
from hybridkern.lab.recipes.moons import MoonsConfig
from hybridkern.lab.recipes.vectors.plots import COLOURS
from hybridkern.lab.recipes.vectors.task import Classification
from hybridkern.lab.recipes.workflow import Run
from hybridkern.lab.reproduce.experiment import Experiment, Request
from hybridkern.lab.reproduce.result import Column, Result, Row, Table
from hybridkern.lab.reproduce.vector_runs import described, out_of_time, trained

_COLUMNS = [
    Column("error", "test error, %", ".2f"),
    Column("log_py", "test -log p(y|x), nats"),
    Column("log_px", "test -log p(x), nats"),
]
_RUNS = {"labels only": 0, "with unlabelled points": 1}
_SUMMARY = (
    "Two half moons with six labelled points: a RealNVP with a small perceptron on its latents, trained on the "
    "labelled points alone, and on all points with entropy minimization."
)
_CLASSES = ((0, COLOURS[1]), (1, COLOURS[0]))
_GRID = 200
_FLOOR = 9.0  # nats below the highest density, where the picture ends


def _run(request: Request, loaded: None) -> Result:
    minutes = request.budget.share(len(_RUNS))
    options = {"data_seed": request.seed}
    runs = {
        name: trained(request, "moons", name.replace(" ", "-"), minutes, options | {"unlabelled": use})
        for name, use in _RUNS.items()
    }
    rows = [Row(name, figures(run)) for name, run in runs.items()]
    return Result(
        [Table("Test points drawn from the same distribution", _COLUMNS, rows, heading="training")],
        {"half-moons": picture(runs)},
        _conditions(runs),
        [sentence for run in runs.values() for sentence in out_of_time(run)],
        {"runs": {name: run.metrics for name, run in runs.items()}},
    )


def figures(run: Run) -> dict[str, float | str | None]:
    """The row of a run."""
    found = run.metrics
    return {
        "error": 100 * found["test_error"], "log_py": found["test_class_nll_nats"], "log_px": found["test_nll_nats"],
    }  # fmt: skip


def _conditions(runs: dict[str, Run]) -> list[str]:
    both = runs["with unlabelled points"]
    config = both.record.config
    assert isinstance(config, MoonsConfig)
    found = [
        f"Data: {config.size} points, {config.labelled} of them labelled, evenly spread along the moons; noise of "
        f"{config.spread:g}, {both.metrics['examples']['test']} points to test; all drawn from the seed. No label "
        f"beyond those {config.labelled} is used for training or for a choice.",
        *(f"{name}: RealNVP of {config.layers} couplings, {described(run)}." for name, run in runs.items()),
        f"In each step, Gaussian noise of standard deviation {config.jitter:g} is added to the training points.",
        f"Objective: {both.metrics['objective']}.",
        "Published (Nalisnick et al. 2019, arXiv:1902.02767): pictures of samples and decisions, no numbers; the "
        "picture here shows p(y|x), p(x) and samples.",
    ]
    return found


def picture(runs: dict[str, Run]) -> Figure:
    """For each run: ``p(y|x)`` with its boundary, ``log p(x)``, and samples in the colours of their predicted class."""
    figure = Figure(figsize=(13.5, 4.0 * len(runs)), layout="constrained")
    for row, (name, run) in zip(figure.subplots(len(runs), 3, squeeze=False), runs.items(), strict=True):
        assert isinstance(run.task, Classification)
        data = run.record.recipe.load(run.record.config)
        grid, probability, log_px = on_grid(run.task)
        _draw_probability(row[0], grid, probability, data)
        row[0].set_title(f"{name}: p(y=1|x)")
        floor = log_px.max() - _FLOOR
        shown = row[1].pcolormesh(*grid, log_px.clip(floor), cmap="viridis", shading="nearest", rasterized=True)
        figure.colorbar(shown, ax=row[1], shrink=0.8)
        row[1].set_title(f"{name}: log p(x), nats")
        _draw_samples(row[2], run.task, run.record.config.seed)
        row[2].set_title(f"{name}: samples")
        for axes in row:
            axes.set_xlim(-2.0, 3.0)
            axes.set_ylim(-1.5, 2.0)
            axes.set_aspect("equal")
    return figure


def on_grid(task: Classification) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
    """Coordinates, ``p(y=1|x)`` and ``log p(x)`` on a grid over the picture."""
    first, second = np.meshgrid(np.linspace(-2.0, 3.0, _GRID), np.linspace(-1.5, 2.0, _GRID))
    x = torch.tensor(np.stack([first.ravel(), second.ravel()], 1), dtype=torch.float32)
    with evaluating(task):
        out = task.output(x)
        probability: Any = task.model.head.log_prob(out.prediction, torch.ones(len(x), dtype=torch.int64)).exp()
    return (first, second), probability.numpy().reshape(first.shape), out.log_px.numpy().reshape(first.shape)


def _draw_probability(axes: Axes, grid: tuple[np.ndarray, np.ndarray], probability: np.ndarray, data: DataSet) -> None:
    axes.pcolormesh(*grid, probability, cmap="RdBu", vmin=0, vmax=1, alpha=0.6, shading="nearest", rasterized=True)
    axes.contour(*grid, probability, levels=[0.5], colors="black", linewidths=1.2)
    x, y = data.train.x.numpy(), data.train.y.numpy()
    axes.scatter(x[y < 0, 0], x[y < 0, 1], s=3, color="0.4")
    for label, colour in _CLASSES:
        axes.scatter(x[y == label, 0], x[y == label, 1], s=60, color=colour, edgecolor="white", zorder=3)


def _draw_samples(axes: Axes, task: Classification, seed: int) -> None:
    with evaluating(task):
        drawn = task.model.sample_with_prediction(1000, generator=torch.Generator().manual_seed(seed))
        x = (drawn.x * task.scale + task.center).numpy()
        predicted = task.model.head.predict(drawn.prediction).numpy()
    for label, colour in _CLASSES:
        axes.scatter(x[predicted == label, 0], x[predicted == label, 1], s=4, color=colour, alpha=0.6)


EXPERIMENT = Experiment("half-moons", _SUMMARY, 3.0, _run)
