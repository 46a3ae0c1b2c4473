"""Experiment ``mnist-semi``: MNIST with 1000 labels, without and with the images that have none."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from hybridkern.recipes.images.plots import finish
from hybridkern.recipes.images.published import PAPER
from hybridkern.recipes.workflow import Run
from hybridkern.reproduce.experiment import Experiment, Request
from hybridkern.reproduce.image_runs import IMAGE_SOURCES, check_sources, described, trained
from hybridkern.reproduce.result import Column, Result, Row, Table

_LABELS = 1000
_OPTIONS: dict[str, Any] = {
    "labels": _LABELS, "levels": 2, "steps": 4, "hidden": 128, "batch_size": 64, "translation": 2, "draws": 1,
}  # fmt: skip
# name, share of unlabelled images in a batch, published error in percent and NLL
_RUNS = (
    ("labels only", {"unlabelled": 0.0}, 6.61, 0.276),
    ("with unlabelled images", {"unlabelled": 0.5, "entropy_weight": 1.0}, 2.21, 0.168),
)
COLUMNS = [
    Column("error", "error, %", ".2f"),
    Column("nll", "NLL of p(y|x), nats"),
    Column("bits", "bits per dimension", ".2f"),
]
_TARGET = 5.0


def run(request: Request, loaded: Any) -> Result:
    """Trains both models and puts them beside the published ones."""
    share = request.budget.share(len(_RUNS))
    runs = [trained(request, "mnist", name.replace(" ", "-"), share, _OPTIONS | options) for name, options, *_ in _RUNS]
    rows, errors = [], []
    for done, (name, _, error, nll) in zip(runs, _RUNS, strict=True):
        found = done.metrics
        errors.append(100 * found["test_error"])
        figures = {"error": errors[-1], "nll": found["test_class_nll_nats"], "bits": found["test_bits_per_dim"]}
        rows += [Row(name, figures), Row(name, {"error": error, "nll": nll}, PAPER)]
    conditions = [
        f"Data: {runs[0].metrics['data']}; {_LABELS} labels, {_LABELS // 10} of each class, spread over the file.",
        "Loss of images without label: (lam / D) times -log p(x), plus the entropy of p(y|x).",
        *(f"{name.capitalize()}: {described(done)}; {done.metrics['steps']} steps."
          for done, (name, *_) in zip(runs, _RUNS, strict=True)),
        f"Loss of the others: {runs[0].metrics['lam_convention']}.",
    ]  # fmt: skip
    return Result(
        [Table(f"MNIST with {_LABELS} labels", COLUMNS, rows, heading="trained on")],
        {"validation": _picture(runs)},
        conditions,
        shortfalls(*errors),
        {"runs": {name: done.metrics for done, (name, *_) in zip(runs, _RUNS, strict=True)}},
    )


def shortfalls(alone: float, together: float) -> list[str]:
    """What the errors (percent) without and with unlabelled images fall short of, in sentences."""
    found = []
    if together > _TARGET:
        found.append(f"The error with unlabelled images is {together:.2f} %, above {_TARGET:g} %.")
    if alone < 2 * together:
        found.append(f"Unlabelled images improve the error by a factor of {alone / together:.2f}, less than 2.")
    return found


def _picture(runs: list[Run]) -> Figure:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for done, (name, *_), colour in zip(runs, _RUNS, ("#b3261e", "#1f5fa8"), strict=True):
        validated = done.metrics["validation"]
        minutes = [seconds / 60 for seconds in validated["seconds"]]
        axes.plot(minutes, [100 * error for error in validated["val_error"]], color=colour, label=name, marker=".")
    axes.set_xlabel("minutes of training")
    axes.set_ylabel("validation error, %")
    axes.set_ylim(bottom=0)
    finish(axes)
    return figure


EXPERIMENT = Experiment(
    "mnist-semi",
    "MNIST with 1000 labels, without and with the images that have none.",
    30.0,
    run,
    check_sources("mnist", lambda request: _OPTIONS),
    tuple(name for name in IMAGE_SOURCES if name != "ood"),
)
