"""Experiment ``ood-failure``: a flow trained on CIFAR-10 finds SVHN more likely, and what other scores do about it."""

from __future__ import annotations

import math
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from hybridkern.hybrid import metrics, scores
from hybridkern.lab.recipes.images.evaluation import score
from hybridkern.lab.recipes.images.plots import finish, histograms
from hybridkern.lab.recipes.images.results import Results
from hybridkern.lab.recipes.workflow import Run
from hybridkern.lab.reproduce.experiment import Experiment, Request
from hybridkern.lab.reproduce.image_runs import IMAGE_SOURCES, check_sources, described, loss_of, of_images, trained
from hybridkern.lab.reproduce.result import Column, Result, Row, Table

_RECIPE = "cifar10"
_OTHER = "SVHN"
_REDRAWN = 0.1
_GROUP = 10
_OPTIONS: dict[str, Any] = {
    "lam": 10.0, "levels": 3, "steps": 8, "hidden": 128, "draws": 1, "ood_size": 1000, "translation": 0,
    "validation": 512,
}  # fmt: skip
COLUMNS = [
    Column("auroc", "AUROC"),
    Column("aupr", "AUPR"),
    Column("fpr95", "FPR at 95 % TPR"),
    Column("direction", "scores higher"),
]
Pair = tuple[Tensor, Tensor]
"""A score, higher meaning more in distribution, of the test part and of the other set."""


def run(request: Request, loaded: Any) -> Result:
    """Trains the model and a background model, and judges every score."""
    share = request.budget.share(2)
    model = trained(request, _RECIPE, "model", share, _OPTIONS)
    background = trained(request, _RECIPE, "background", share, _OPTIONS | {"redrawn": _REDRAWN})
    pairs = all_scores(model, background)
    rows = [Row(name, _judged(*pair)) for name, pair in pairs.items()]
    raw = rows[0].values["auroc"]
    assert isinstance(raw, float)
    conditions = [
        f"Data: {model.metrics['data']}; OOD set: {model.metrics['ood']} ({_OTHER}), {model.metrics['ood_images']} "
        "images of it.",
        f"Both models: {described(model)}; {model.metrics['steps']} and {background.metrics['steps']} steps.",
        f"Loss: {loss_of(model.metrics)}, lambda = 10/D.",
        f"Bits per dimension: test part {model.metrics['test_bits_per_dim']:.3f}, {_OTHER} "
        f"{model.metrics['ood_bits_per_dim']:.3f}.",
        f"The background model is trained on images in which a share of {_REDRAWN:g} of the grey values is redrawn at "
        "random.",
        f"A group is {_GROUP} images of one set, scored by their mean.",
        "AUROC: the probability that an image of the test part scores higher than one of the OOD set; 0.5 is chance.",
        f"Raw log p(x) prefers {_OTHER} to the test part: it fails."
        if raw < 0.5
        else f"Raw log p(x) did not prefer {_OTHER} to the test part in this run.",
    ]
    return Result(
        [Table(f"Telling the test part of CIFAR-10 from {_OTHER}", COLUMNS, rows, heading="score")],
        {"scores": _picture(model, pairs)},
        conditions,
        [f"{name}: no better than chance (AUROC {value:.3f})." for name, value in _failures(rows)],
        {"runs": {"model": model.metrics, "background": background.metrics}},
    )


def all_scores(model: Run, background: Run) -> dict[str, Pair]:
    """Every score of the test part and of the other set, by name; raw ``log p(x)`` first."""
    task, config = of_images(model)
    data = model.record.recipe.load(config)
    found, behind = model.results, background.results
    assert isinstance(found, Results) and found.ood is not None and found.other is not None
    raw = (found.test.log_px, found.ood.log_px)
    bits = [scores.code_bits(x.view(len(x), *data.shape)) for x in (data.test.x, found.other.x)]
    typical = score(task, data.validation.x, config.draws).log_px
    return {
        "log p(x)": raw,
        "typicality": _pair(scores.typicality(part, typical) for part in raw),
        f"typicality of groups of {_GROUP}": _pair(scores.typicality(_grouped(part), typical) for part in raw),
        "likelihood ratio to the background model": _pair(
            scores.likelihood_ratio(part, other)
            for part, other in zip(raw, (behind.test.log_px, behind.ood.log_px), strict=True)
        ),
        "complexity-corrected": _pair(
            scores.complexity_corrected(part, length) for part, length in zip(raw, bits, strict=True)
        ),
    }


def _pair(values: Any) -> Pair:
    inside, outside = values
    return inside, outside


def _grouped(values: Tensor) -> Tensor:
    """Neighbours of the file, ``(N // _GROUP, _GROUP)``; what is left over is dropped."""
    groups = len(values) // _GROUP
    return values[: groups * _GROUP].view(groups, _GROUP)


def _judged(inside: Tensor, outside: Tensor) -> dict[str, float | str]:
    auroc = metrics.auroc(inside, outside)
    return {
        "auroc": auroc,
        "aupr": metrics.aupr(inside, outside),
        "fpr95": metrics.fpr95(inside, outside),
        "direction": "CIFAR-10" if auroc > 0.5 else _OTHER,
    }


def _failures(rows: list[Row]) -> list[tuple[str, float]]:
    values = [(row.label, row.values["auroc"]) for row in rows]
    return [(label, value) for label, value in values if isinstance(value, float) and value <= 0.5]


def _picture(model: Run, pairs: dict[str, Pair]) -> Figure:
    task, _ = of_images(model)
    figure = Figure(figsize=(11.0, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    unit = -1 / (task.dim * math.log(2))
    raw = next(iter(pairs.values()))
    histograms(left, {"CIFAR-10, test part": raw[0] * unit, _OTHER: raw[1] * unit})
    left.set_title("Trained on CIFAR-10")
    for name, (inside, outside) in pairs.items():
        thresholds = torch.cat([inside, outside]).unique()
        accepted = [
            1 - torch.searchsorted(part.sort().values, thresholds).double() / len(part) for part in (outside, inside)
        ]
        right.plot(accepted[0].numpy(), accepted[1].numpy(), label=name)
    right.plot([0, 1], [0, 1], color="0.6", linestyle="--")
    right.set_xlabel(f"share of {_OTHER} accepted")
    right.set_ylabel("share of CIFAR-10 accepted")
    finish(right, "lower right")
    return figure


EXPERIMENT = Experiment(
    "ood-failure",
    "A known failure: a flow trained on CIFAR-10 gives SVHN the higher likelihood; and how other scores do.",
    20.0,
    run,
    check_sources(_RECIPE, lambda request: _OPTIONS, ood=_OTHER),
    IMAGE_SOURCES,
)
