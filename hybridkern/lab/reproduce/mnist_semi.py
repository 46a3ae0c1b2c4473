"""Experiment ``mnist-semi``: MNIST with 1000 labels, without and with the unlabelled images."""

from __future__ import annotations

from typing import Any, NamedTuple

from matplotlib.figure import Figure

from hybridkern.lab.recipes.images.plots import finish
from hybridkern.lab.recipes.images.published import PAPER
from hybridkern.lab.recipes.workflow import Run
from hybridkern.lab.reproduce.experiment import Experiment, Request
from hybridkern.lab.reproduce.image_runs import IMAGE_SOURCES, check_sources, described, loss_of, trained
from hybridkern.lab.reproduce.result import Column, Result, Row, Table

_LABELS = 1000
_OPTIONS: dict[str, Any] = {
    "labels": _LABELS, "levels": 2, "steps": 4, "hidden": 64, "batch_size": 64, "translation": 2, "draws": 1,
    "lr": 2e-3, "lam": 0.1, "boost": 1.0,  # error is what counts here
}  # fmt: skip


class Setting(NamedTuple):
    """A model of the experiment, with its published error in percent and NLL where there is one."""

    name: str
    options: dict[str, Any]
    error: float | None = None
    nll: float | None = None


_SETTINGS = (
    Setting("labels only, images as they are", {"unlabelled": 0.0, "translation": 0}, 6.61, 0.276),
    Setting("labels only", {"unlabelled": 0.0}),
    Setting("with unlabelled images", {"unlabelled": 0.75, "consistency": 1.0, "distortion": 1.0}, 2.21, 0.168),
)
COLUMNS = [
    Column("error", "error, %", ".2f"),
    Column("nll", "NLL of p(y|x), nats"),
    Column("bits", "bits per dimension", ".2f"),
]
_TARGET = 5.0
_HIGHEST_SHOWN = 20.0


def run(request: Request, loaded: Any) -> Result:
    """Trains the models and puts them beside the published ones."""
    share = request.budget.share(len(_SETTINGS))
    runs = {
        setting.name: trained(request, "mnist", _label(setting.name), share, _OPTIONS | setting.options)
        for setting in _SETTINGS
    }
    rows = []
    for setting in _SETTINGS:
        rows.append(Row(setting.name, _figures(runs[setting.name])))
        if setting.error is not None:
            rows.append(Row(setting.name, {"error": setting.error, "nll": setting.nll}, PAPER))
    errors = {name: 100 * done.metrics["test_error"] for name, done in runs.items()}
    return Result(
        [Table(f"MNIST with {_LABELS} labels", COLUMNS, rows, heading="trained on")],
        {"validation": _picture(runs)},
        _conditions(runs),
        [*shortfalls(errors), _DIFFERENCE],
        {"runs": {name: done.metrics for name, done in runs.items()}},
    )


_DIFFERENCE = (
    "The paper does not shift images and has no consistency term: its semi-supervised model is trained on log p(x) and "
    "low entropy alone."
)


def _label(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")


def _figures(done: Run) -> dict[str, float]:
    found = done.metrics
    return {
        "error": 100 * found["test_error"],
        "nll": found["test_class_nll_nats"],
        "bits": found["test_bits_per_dim"],
    }


def _conditions(runs: dict[str, Run]) -> list[str]:
    last = list(runs.values())[-1]
    return [
        f"Data: {last.metrics['data']}; {_LABELS} labels, {_LABELS // 10} of each class, spread over the file.",
        f"Loss of images with a label: {loss_of(last.metrics)}, lambda = {last.metrics['lam']:g}/D.",
        "Loss of images without a label: the sum of (lambda / D) times -log p(x), the entropy of p(y|x) and, where the "
        "model gives a class a probability of at least 0.95, the cross-entropy to that class of a second view of the "
        "image: shifted differently, rotated (up to 25 degrees), sheared (0.3) and scaled (1.2).",
        *(f"{name[0].upper()}{name[1:]}: {described(done)}; {done.metrics['steps']} steps."
          for name, done in runs.items()),
    ]  # fmt: skip


def shortfalls(errors: dict[str, float]) -> list[str]:
    """What the errors (percent) by setting, the last with unlabelled images, fall short of, in sentences."""
    *alone, (_, together) = errors.items()
    found = []
    if together > _TARGET:
        found.append(f"The error with unlabelled images is {together:.2f} %, above {_TARGET:g} %.")
    for name, error in alone:
        if error < 2 * together:
            factor = error / together
            found.append(f'Unlabelled images improve the error of "{name}" by a factor of {factor:.2f}, less than 2.')
    return found


def _picture(runs: dict[str, Run]) -> Figure:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for (name, done), colour in zip(runs.items(), ("0.55", "#b3261e", "#1f5fa8"), strict=True):
        validated = done.metrics["validation"]
        minutes = [seconds / 60 for seconds in validated["seconds"]]
        axes.plot(minutes, [100 * error for error in validated["val_error"]], color=colour, label=name, marker=".")
    axes.set_xlabel("minutes of training")
    axes.set_ylabel(f"validation error, % (up to {_HIGHEST_SHOWN:g})")
    axes.set_ylim(0, _HIGHEST_SHOWN)  # the first steps are far above all that follows
    finish(axes)
    return figure


EXPERIMENT = Experiment(
    "mnist-semi",
    "MNIST with 1000 labels, without and with the unlabelled images.",
    30.0,
    run,
    check_sources("mnist", lambda request: _OPTIONS),
    tuple(name for name in IMAGE_SOURCES if name != "ood"),
)
