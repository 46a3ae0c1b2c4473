"""Experiment ``flights``: regression on delays of flights, with the density of what is regressed on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import LinearRegression

from hybridkern.lab.data import DataSet, Split
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.flights import load_flights
from hybridkern.lab.recipes.vectors.plots import draw_log_densities, finish
from hybridkern.lab.recipes.vectors.results import Results, score_x
from hybridkern.lab.recipes.vectors.task import Regression
from hybridkern.lab.recipes.workflow import Run
from hybridkern.lab.reproduce.experiment import Experiment, Request
from hybridkern.lab.reproduce.result import Column, Result, Row, Table
from hybridkern.lab.reproduce.vector_runs import described, of_vectors, out_of_time, trained

_COLUMNS = [
    Column("rmse", "test RMSE, minutes", ".2f"),
    Column("log_py", "test -log p(y|x), nats"),
    Column("log_px", "test -log p(x), nats", ".2f"),
    Column("log_px_train", "the same on training rows", ".2f"),
]
_PAPER = "Nalisnick et al. 2019 (flights of 2008)"
_RUNS: dict[str, dict[str, Any]] = {
    "gaussian": {"head": "gaussian", "noise": "input", "head_hidden": 64},
    "bayesian": {"head": "bayesian"},
}
_LABELS = {
    "gaussian": "RealNVP, perceptron for mean and noise on the latents",
    "bayesian": "RealNVP, Bayesian linear regression on the latents",
}
_GOAL = 41.0
_GP_ROWS = 1500
_SUMMARY = (
    "The delay of a flight from eight numbers about it, and the density of these numbers, by one RealNVP with a head "
    "on its latents; log p(x) of training rows is compared with that of later rows."
)


def _load(request: Request) -> DataSet:
    if request.data is None:
        raise RecipeError("--data: the experiment 'flights' needs an .npz file")
    return load_flights(request.data, clock=True)


def _run(request: Request, data: DataSet) -> Result:
    minutes = request.budget.share(len(_RUNS))
    options = {"data": str(request.data)}
    runs = {name: trained(request, "flights", name, minutes, options | model) for name, model in _RUNS.items()}
    request.say("least squares and Gaussian process")
    ours = {name: _figures(run, data) for name, run in runs.items()}
    others = baselines(data, load_flights(str(request.data), clock=False), request.seed)
    rows = [Row(_LABELS[name], values) for name, values in ours.items()]
    rows += [Row(name, values, "scikit-learn, this run") for name, values in others.items()]
    rows += [
        Row("RealNVP", {"rmse": 40.46, "log_py": 5.07}, _PAPER),
        Row("best GP", {"rmse": 38.38, "log_py": 6.91}, _PAPER),
    ]
    margin = min(row["log_py"] for row in others.values()) - min(row["log_py"] for row in ours.values())
    return Result(
        [Table("Test rows, later than all training rows", _COLUMNS, rows, heading="model")],
        {"flights": picture(runs["gaussian"], data)},
        [*_conditions(runs), f"-log p(y|x) is {margin:.3f} nats below the best baseline's."],
        shortfalls(ours, others) + [sentence for run in runs.values() for sentence in out_of_time(run)],
        {"runs": {name: run.metrics for name, run in runs.items()}, "margin_nats": margin},
    )


def _figures(run: Run, data: DataSet) -> dict[str, float]:
    found = run.metrics
    assert isinstance(run.task, Regression)
    return {
        "rmse": found["test_rmse"],
        "log_py": found["test_class_nll_nats"],
        "log_px": found["test_nll_nats"],
        "log_px_train": -score_x(run.task, data.train.x).mean().item(),
    }


def gaussian_nll(y: np.ndarray, mean: np.ndarray, std: np.ndarray | float) -> float:
    """Mean of ``-log N(y; mean, std**2)`` in nats."""
    return float(np.mean(0.5 * ((y - mean) / std) ** 2 + np.log(std) + 0.5 * math.log(2 * math.pi)))


def baselines(data: DataSet, raw: DataSet, seed: int) -> dict[str, dict[str, float]]:
    """RMSE and ``-log p(y|x)`` of least squares, on the file's features and the turned ones, and of a process."""
    found = {}
    for name, given in (("least squares, features of the file", raw), ("least squares, clock times turned", data)):
        x, y = _arrays(given.train)
        line = LinearRegression().fit(x, y)
        found[name] = _judged(given.test, line.predict(_arrays(given.test)[0]), float(np.std(y - line.predict(x))))
    x, y = _arrays(data.train)
    centre, scale = x.mean(0), x.std(0)
    rows = np.random.default_rng(seed).choice(len(x), min(_GP_ROWS, len(x)), replace=False)
    kernel = ConstantKernel(1.0) * RBF(np.full(x.shape[1], 3.0), (0.1, 1e3)) + WhiteKernel(0.5)
    process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed)
    process.fit((x[rows] - centre) / scale, y[rows])
    mean, std = process.predict((_arrays(data.test)[0] - centre) / scale, return_std=True)
    found[f"Gaussian process, {len(rows)} random rows, clock times turned"] = _judged(data.test, mean, std)
    return found


def _arrays(part: Split) -> tuple[np.ndarray, np.ndarray]:
    return part.x.double().numpy(), part.y.double().numpy()


def _judged(test: Split, mean: np.ndarray, std: np.ndarray | float) -> dict[str, float]:
    y = _arrays(test)[1]
    return {"rmse": float(np.sqrt(np.mean((y - mean) ** 2))), "log_py": gaussian_nll(y, mean, std)}


def _conditions(runs: dict[str, Run]) -> list[str]:
    first = next(iter(runs.values()))
    examples, config = first.metrics["examples"], of_vectors(first)
    return [
        f"Data: {first.metrics['data']}, rows in order of time: {examples['train']} to train, the next "
        f"{examples['validation']} to choose the epoch, the last {examples['test']} to test.",
        "Departure is counted from 4 a.m., months from July, and arrival is replaced by the time not spent in the air, "
        "modulo a day or a year. These maps are one-to-one and keep volumes, so that p(x) stays comparable. Uniform "
        "noise of width 1 is added to whole numbers. The order of months was chosen after figures of the test rows had "
        "been seen.",
        *(
            f"{_LABELS[name]}: {of_vectors(run).layers} couplings with networks of {config.hidden} units, "
            f"{described(run)}."
            for name, run in runs.items()
        ),
        f"Objective: {first.metrics['objective']}; it is computed on standardized data, figures are in minutes and the "
        "units of the data.",
        "Published figures are of other data (flights of the whole country in 2008, 5 million rows).",
    ]


def shortfalls(ours: dict[str, dict[str, float]], baselines: dict[str, dict[str, float]]) -> list[str]:
    """What the figures of our models, by their short names, fall short of, in sentences."""
    name, best = min(baselines.items(), key=lambda item: item[1]["log_py"])
    found = []
    for model, values in ours.items():
        if values["rmse"] > _GOAL:
            found.append(f"{_LABELS[model]}: test RMSE {values['rmse']:.2f}, above {_GOAL:g}.")
        excess = values["log_py"] - best["log_py"]
        if excess > 0:
            found.append(
                f"{_LABELS[model]}: -log p(y|x) is {excess:.3f} nats above that of the best baseline ({name})."
            )
    return found


def picture(run: Run, data: DataSet) -> Figure:
    """Histograms of ``log p(x)`` of training and test rows, and the mean squared error by ``log p(x)``."""
    task, results = run.task, run.results
    assert isinstance(task, Regression) and isinstance(results, Results)
    figure = Figure(figsize=(12.0, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_log_densities(left, {"training rows": score_x(task, data.train.x), "test rows": results.test.log_px})
    left.set_title("log p(x)")
    order = results.test.log_px.argsort()
    groups = (results.test.predicted - data.test.y)[order].square().double().chunk(20)
    right.plot(np.linspace(2.5, 97.5, len(groups)), [group.mean().sqrt().item() for group in groups], "o-")
    right.set_xlabel("test rows by log p(x), percentile")
    right.set_ylabel("RMSE of these rows, minutes")
    right.set_title("Error where p(x) is low and high")
    finish(right)
    return figure


EXPERIMENT = Experiment("flights", _SUMMARY, 10.0, _run, _load, sources=("data",))
