"""Experiment ``residual-toy``: four densities in the plane by flows of as many parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from hybridkern.lab.recipes.density.task import DensityTask
from hybridkern.lab.recipes.density.toy import DRAWN, ToyConfig
from hybridkern.lab.recipes.evaluation import evaluating
from hybridkern.lab.recipes.workflow import Run, train
from hybridkern.lab.reproduce.experiment import Experiment, Request
from hybridkern.lab.reproduce.result import Column, Result, Row, Table

# Of nearly as many parameters each.
MODELS: dict[str, dict[str, Any]] = {
    "RealNVP": {"flow": "realnvp", "layers": 8, "hidden": 38},
    "NSF": {"flow": "nsf", "layers": 5, "hidden": 40, "bins": 8, "bound": 4.0},
    "residual": {"flow": "residual", "layers": 8, "hidden": 38},
    "i-DenseNet": {
        "flow": "residual",
        "layers": 8,
        "net": "dense",
        "activation": "clipswish",
        "hidden": 30,
        "depth": 3,
    },
}
# Of the time: steps of the residual flows take several times as long as those of the others.
_SHARES = {"RealNVP": 1, "NSF": 1, "residual": 3, "i-DenseNet": 3}
_COLUMNS = [*(Column(name, name) for name in DRAWN), Column("parameters", "parameters", ".0f")]
_SUMMARY = (
    "Four densities in the plane, by a residual flow, an invertible DenseNet, RealNVP and a neural spline flow with "
    "about the same number of parameters."
)
_LIMIT = 4.2  # of the picture's axes; all densities lie within
_GRID = 150
_CHECKERBOARD = float(np.log(32))


def run(request: Request, loaded: Any) -> Result:
    """Trains every flow on every density."""
    share = request.budget.share(sum(_SHARES.values()) * len(DRAWN))
    runs = {
        (model, density): _trained(request, model, density, _SHARES[model] * share)
        for model in MODELS
        for density in DRAWN
    }
    rows = [Row(model, _figures(runs, model)) for model in MODELS]
    return Result(
        [Table("Negative log-likelihood of test points, nats", _COLUMNS, rows, heading="flow")],
        {"densities": _picture(runs)},
        [*_conditions(runs), request.budget.on_processor],
        [*shortfalls({row.label: row.values for row in rows}), *_cut(runs)],
        {"runs": {f"{model}, {density}": done.metrics for (model, density), done in runs.items()}},
    )


def _trained(request: Request, model: str, density: str, minutes: float) -> Run:
    folder = request.run_folder(f"{model}-{density}".lower())
    request.say(f"toy-density: {density}, {model}, at most {minutes:.3g} minutes")
    options = MODELS[model] | {"density": density, "minutes": minutes, "seed": request.seed, "data_seed": request.seed}
    return train(
        "toy-density", options, folder, resume=(folder / "config.json").exists(), console=request.console
    )  # fmt: skip


def _figures(runs: Mapping[tuple[str, str], Run], model: str) -> dict[str, float]:
    found = {density: runs[model, density].metrics for density in DRAWN}
    nlls = {density: metrics["test_nll_nats"] for density, metrics in found.items()}
    return nlls | {"parameters": found[next(iter(DRAWN))]["parameters"]}


def _conditions(runs: Mapping[tuple[str, str], Run]) -> list[str]:
    first = next(iter(runs.values()))
    config = first.record.config
    assert isinstance(config, ToyConfig)
    errors = [done.metrics["test_nll_standard_error"] for done in runs.values()]
    examples = first.metrics["examples"]
    return [
        f"Data: {examples['train']} points to train, {examples['validation']} to choose the epoch and "
        f"{examples['test']} to test, drawn from the seed, the same for all flows; standard errors "
        f"{min(errors):.3f} to {max(errors):.3f}.",
        f"The entropy of the checkerboard is {_CHECKERBOARD:.3f}: only by chance of the test points can a figure be "
        "below it.",
        f"Training: {config.optimizer}, highest learning rate {config.lr:g}, batches of {config.batch_size}, at most "
        f"{config.epochs} epochs along a half cosine over the time; the weights kept are those of the lowest "
        "validation loss. The residual flows get three times the time of the others.",
        "Residual flow: 8 layers with two hidden layers of 38 units, LipSwish; i-DenseNet: 8 layers with three dense "
        "layers of growth 30, CLipSwish, learnable concatenation; log-determinants are exact. RealNVP: 8 couplings; "
        "NSF: 5 spline couplings of 8 bins with LU layers.",
        "Epochs: " + "; ".join(
            f"{model} {', '.join(str(runs[model, density].metrics['epochs']) for density in DRAWN)}" for model in MODELS
        ) + f" ({', '.join(DRAWN)}).",
        "Published (Perugachi-Diaz et al. 2021, arXiv:2102.02694): figures on other samples of such densities, not "
        "comparable; there, i-DenseNets are below residual flows on all of them.",
    ]  # fmt: skip


def shortfalls(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where the order i-DenseNet, residual, RealNVP does not hold; ``rows`` are the NLLs by flow and density."""
    found = []
    for density in DRAWN:
        dense, residual, coupling = (rows[name][density] for name in ("i-DenseNet", "residual", "RealNVP"))
        if dense > residual:
            found.append(f"{density}: i-DenseNet ({dense:.3f}) is above the residual flow ({residual:.3f}).")
        for name, value in (("i-DenseNet", dense), ("residual flow", residual)):
            if value >= coupling:
                found.append(f"{density}: the {name} ({value:.3f}) is not below RealNVP ({coupling:.3f}).")
    return found


def _cut(runs: Mapping[tuple[str, str], Run]) -> list[str]:
    cut = [f"{m} on {d}" for (m, d), done in runs.items() if done.metrics["epochs"] < done.record.config.epochs]
    return [f"The time limit ended training before the last epoch: {', '.join(cut)}."] if cut else []


def _picture(runs: Mapping[tuple[str, str], Run]) -> Figure:
    """The data and ``p(x)`` of every flow, a row for each density."""
    figure = Figure(figsize=(2.6 * (len(MODELS) + 1), 2.7 * len(DRAWN)), layout="constrained")
    axis = np.linspace(-_LIMIT, _LIMIT, _GRID)
    grid = torch.tensor(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2))
    for panels, density in zip(figure.subplots(len(DRAWN), len(MODELS) + 1, squeeze=False), DRAWN, strict=True):
        first = runs[next(iter(MODELS)), density]
        points = first.record.recipe.load(first.record.config).train.x.numpy()
        panels[0].hist2d(points[:, 0], points[:, 1], bins=_GRID // 2, range=[[-_LIMIT, _LIMIT]] * 2, cmap="viridis")
        panels[0].set_title(f"{density}: points", fontsize=9)
        for axes, model in zip(panels[1:], MODELS, strict=True):
            done = runs[model, density]
            assert isinstance(done.task, DensityTask)
            with evaluating(done.task):
                p = done.task.log_px(grid).exp().numpy().reshape(_GRID, _GRID)
            axes.imshow(p, origin="lower", extent=(-_LIMIT, _LIMIT) * 2, cmap="viridis", vmax=np.quantile(p, 0.995))
            axes.set_title(f"{model}: {done.metrics['test_nll_nats']:.3f} nats", fontsize=9)
        for axes in panels:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_aspect("equal")
    return figure


EXPERIMENT = Experiment("residual-toy", _SUMMARY, 10.0, run)
