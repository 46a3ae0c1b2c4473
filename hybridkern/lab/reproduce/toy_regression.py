"""Experiment ``toy-regression``: the hybrid model against a Gaussian process and a kernel density estimate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity

from hybridkern.hybrid.heads import BayesianLinear
from hybridkern.lab.data import DataSet, Split
from hybridkern.lab.recipes.cubic import DEVIATIONS, MEANS, CubicConfig
from hybridkern.lab.recipes.evaluation import evaluating
from hybridkern.lab.recipes.vectors.plots import COLOURS, finish
from hybridkern.lab.recipes.vectors.task import Regression
from hybridkern.lab.recipes.workflow import Run
from hybridkern.lab.reproduce.experiment import Experiment, Request
from hybridkern.lab.reproduce.result import Column, Result, Row, Table
from hybridkern.lab.reproduce.vector_runs import described, out_of_time, trained

_AXIS = (-8.0, 8.0)
_GRID = 801
_BANDWIDTHS = np.geomspace(0.05, 2.0, 30)
_COLUMNS = [
    Column("rmse", "test RMSE", ".2f"),
    Column("log_py", "test -log p(y|x), nats"),
    Column("log_px", "test -log p(x), nats"),
    Column("modes", "modes of p(x)", ".0f"),
    Column("std_near", "predictive std at x = 4", ".2f"),
    Column("std_far", "at x = 8", ".2f"),
]
_HYBRID, _GP, _KDE, _TRUTH = "hybrid model", "Gaussian process", "kernel density", "the true distribution"
_SUMMARY = (
    "Regression on 250 points with three clusters of x and y = x^3 + noise: a flow of three planar maps with Bayesian "
    "linear regression on its latent gives both p(y|x) and p(x); a Gaussian process gives only the first, and a kernel "
    "density estimate only the second."
)


@dataclass(frozen=True)
class Model:
    """Predictive ``mean`` and ``std`` of y, and ``log_px``, each a function of x ``(N,)``; None: it has none."""

    moments: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None
    log_px: Callable[[np.ndarray], np.ndarray] | None


def hybrid(task: Regression) -> Model:
    """A trained task."""

    def output(x: np.ndarray) -> Any:
        with evaluating(task):
            return task.output(torch.tensor(x[:, None], dtype=torch.float32))

    def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, std = task.moments(output(x).prediction)
        return mean.double().numpy(), std.double().numpy()

    return Model(moments, lambda x: output(x).log_px.double().numpy())


def gaussian_process(train: Split, seed: int) -> Model:
    """Squared-exponential kernel and noise, by the marginal likelihood, on standardized targets."""
    x, y = train.x.double().numpy(), train.y.double().numpy()
    kernel = ConstantKernel(1.0) * RBF(1.0) + WhiteKernel(0.1)
    process = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=2, random_state=seed).fit(x, y)
    return Model(lambda at: process.predict(at[:, None], return_std=True), None)


def kernel_density(train: Split) -> Model:
    """Gaussian kernels, their width by cross-validation."""
    search = GridSearchCV(KernelDensity(), {"bandwidth": _BANDWIDTHS}, cv=10).fit(train.x.double().numpy())
    return Model(None, lambda at: search.best_estimator_.score_samples(at[:, None]))


def truth() -> Model:
    """The distribution that x is drawn from."""

    def log_px(x: np.ndarray) -> np.ndarray:
        parts = [
            -0.5 * ((x - mean) / std) ** 2 - math.log(std * math.sqrt(2 * math.pi) * len(MEANS))
            for mean, std in zip(MEANS, DEVIATIONS, strict=True)
        ]
        return np.logaddexp.reduce(parts)

    return Model(None, log_px)


def figures(model: Model, test: Split) -> dict[str, float | str | None]:
    """The row of a model."""
    x, y = test.x[:, 0].double().numpy(), test.y.double().numpy()
    row: dict[str, float | str | None] = {}
    if model.moments is not None:
        mean, std = model.moments(x)
        loss = 0.5 * ((y - mean) / std) ** 2 + np.log(std * math.sqrt(2 * math.pi))
        near, far = model.moments(np.array([4.0, 8.0]))[1]
        row |= {"rmse": np.sqrt(np.mean((y - mean) ** 2)), "log_py": loss.mean(), "std_near": near, "std_far": far}
    if model.log_px is not None:
        row |= {"log_px": -model.log_px(x).mean(), "modes": modes(np.exp(model.log_px(np.linspace(*_AXIS, _GRID))))}
    return row


def modes(density: np.ndarray) -> int:
    """Local maxima that are at least 5 % of the highest and stand out from the dips beside them by a tenth."""
    found = 0
    low, high, rising = 0.0, 0.0, True
    for value in density:
        if rising:
            high = max(high, value)
            if value < 0.9 * high and high >= 0.05 * density.max():
                found, rising, low = found + 1, False, value
        else:
            low = min(low, value)
            if value > low / 0.9:
                rising, high = True, value
    return found


def _run(request: Request, loaded: None) -> Result:
    run = trained(request, "cubic", "hybrid", request.budget.minutes, {"data_seed": request.seed})
    data = run.record.recipe.load(run.record.config)
    assert isinstance(run.task, Regression)
    request.say("Gaussian process and kernel density estimate")
    models = {
        _HYBRID: hybrid(run.task), _GP: gaussian_process(data.train, request.seed),
        _KDE: kernel_density(data.train), _TRUTH: truth(),
    }  # fmt: skip
    rows = [Row(name, figures(model, data.test)) for name, model in models.items()]
    return Result(
        [Table("Test points drawn from the same distribution", _COLUMNS, rows, heading="model")],
        {"toy-regression": picture(models, data)},
        _conditions(run),
        [*_shortfalls(run.task, rows[0]), *out_of_time(run)],
        {"run": run.metrics},
    )


def _conditions(run: Run) -> list[str]:
    examples, config = run.metrics["examples"], run.record.config
    assert isinstance(config, CubicConfig)
    return [
        f"Data: {examples['train']} points to train all models, {examples['test']} to test; x from N(-4, 0.4), "
        "N(0, 0.6), N(4, 0.4) in equal parts, noise of standard deviation 3, 20, 3; all drawn from the seed.",
        f"Hybrid model: three planar maps, Bayesian linear regression, {described(run)}; initial weights: the best of "
        f"{config.starts} tries.",
        f"Objective: {run.metrics['objective']}; log p(y|x) is the log marginal likelihood of the batch.",
        "Gaussian process: squared-exponential kernel and noise, by marginal likelihood (scikit-learn); kernel "
        "density: Gaussian, width by 10-fold cross-validation.",
        "Published (Nalisnick et al. 2019, arXiv:1902.02767): a figure of predictive band and p(x), no numbers; the "
        "picture here has the same panels.",
    ]


def _shortfalls(task: Regression, row: Row) -> list[str]:
    near, far = row.values["std_near"], row.values["std_far"]
    head = task.model.head
    assert isinstance(head, BayesianLinear)
    noise = (head.noise * task.target_scale).item()
    found = [
        f"The noise of the Bayesian linear head is one number ({noise:.1f}), so the band does not narrow where the "
        "noise is 3; the Gaussian process has the same limit.",
        f"Away from the data the band of the hybrid model grows only from {near:.2f} (x = 4) to {far:.2f} (x = 8): "
        "with one latent and 250 points the weights are nearly certain. The distance from the data shows in p(x) "
        "alone.",
    ]
    if row.values["modes"] != 3:
        found.append(f"p(x) of the hybrid model has {row.values['modes']} modes, not 3.")
    return found


def picture(models: dict[str, Model], data: DataSet) -> Figure:
    """Predictive bands of the process and of the hybrid model, and the densities."""
    figure = Figure(figsize=(15.0, 4.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    x = np.linspace(*_AXIS, _GRID)
    for axes, name, colour in ((left, _GP, COLOURS[2]), (middle, _HYBRID, COLOURS[0])):
        _draw_band(axes, models[name], x, data.train, colour)
        axes.set_title(f"{name}: p(y|x)")
    for name, colour in ((_HYBRID, COLOURS[0]), (_KDE, COLOURS[2]), (_TRUTH, COLOURS[3])):
        density = models[name].log_px
        assert density is not None
        right.plot(x, np.exp(density(x)), color=colour, linestyle="--" if name == _TRUTH else "-", label=name)
    points = data.train.x[:, 0].numpy()
    right.plot(points, np.full_like(points, -0.01), "|", color=COLOURS[3], markersize=6)
    right.set_title("p(x)")
    right.set_xlabel("x")
    right.set_ylim(top=1.45 * right.get_ylim()[1])  # room for the legend
    finish(right, "upper center")
    return figure


def _draw_band(axes: Axes, model: Model, x: np.ndarray, train: Split, colour: str) -> None:
    assert model.moments is not None
    mean, std = model.moments(x)
    for width, alpha in ((2, 0.15), (1, 0.25)):
        label = f"{width} standard deviation" + "s" * (width > 1)
        axes.fill_between(
            x, mean - width * std, mean + width * std, color=colour, alpha=alpha, linewidth=0, label=label
        )
    axes.plot(x, mean, color=colour, label="predictive mean")
    axes.plot(x, x**3, color=COLOURS[3], linestyle="--", linewidth=1, label="$x^3$")
    axes.plot(train.x[:, 0].numpy(), train.y.numpy(), ".", color="black", markersize=3, alpha=0.6)
    axes.set_ylim(-250, 250)
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    finish(axes, "upper left")


EXPERIMENT = Experiment("toy-regression", _SUMMARY, 3.0, _run)
