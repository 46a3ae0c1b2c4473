"""The experiments of Nalisnick et al. 2019 on images: one model for each weight of ``log p(x)``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hybridkern.hybrid import SelectiveClassifier, metrics
from hybridkern.lab.data import DataSet
from hybridkern.lab.recipes.images.batches import dequantized, seeded
from hybridkern.lab.recipes.images.evaluation import Scores
from hybridkern.lab.recipes.images.published import PAPER, PaperRow
from hybridkern.lab.recipes.images.results import Results
from hybridkern.lab.recipes.images.task import ImageTask
from hybridkern.lab.recipes.workflow import Run
from hybridkern.lab.reproduce.experiment import Experiment, Request
from hybridkern.lab.reproduce.image_runs import IMAGE_SOURCES, check_sources, described, loss_of, of_images, trained
from hybridkern.lab.reproduce.ordering import Ordering, sentences
from hybridkern.lab.reproduce.panels import Curve, three_panels
from hybridkern.lab.reproduce.result import Column, Result, Row, Table

_FITTED = 2048  # training images that the threshold is taken from: all of them would take as long as training
_BATCH = 128
_NOISE_SEED = 3
COLUMNS = [
    Column("bits", "bits per dimension", ".2f"),
    Column("error", "error, %", ".2f"),
    Column("nll", "NLL of p(y|x), nats"),
    Column("ood_bits", "OOD set: bits per dimension", ".2f"),
    Column("ood_nll", "OOD set: NLL, nats", ".2f"),
    Column("ood_entropy", "OOD set: entropy of p(y|x), nats"),
    Column("ood_entropy_rejecting", "the same, with p(y) where rejected"),
    Column("ood_rejected", "OOD set rejected, %", ".1f"),
    Column("rejected", "test part rejected, %", ".1f"),
    Column("auroc", "AUROC of log p(x)"),
]
# As in the tables of the paper, where entropies also stand still; likelihoods of the other sets follow no order there.
_ORDERINGS = (
    Ordering("error", "error", rising=True),
    Ordering("bits", "bits per dimension", rising=False),
    Ordering("ood_entropy", "entropy of p(y|x) on the OOD set", rising=True, strict=False),
    Ordering("ood_entropy_rejecting", "entropy on the OOD set, with p(y) where rejected,", rising=True, strict=False),
)


@dataclass(frozen=True)
class Sweep:
    """What distinguishes one such experiment from another.

    Attributes:
        recipe: on images; also the experiment's name.
        name: of its data set.
        other: the set that is scored beside the test part.
        paper: published figures, one row for each weight; these weights are trained.
        options: settings of the recipe for a run of so many minutes.
        differences: from the published experiment.
    """

    recipe: str
    name: str
    other: str
    paper: tuple[PaperRow, ...]
    options: Callable[[float], dict[str, Any]]
    differences: tuple[str, ...]


def sweep_experiment(sweep: Sweep, summary: str, minutes: float) -> Experiment:
    """The experiment: one run for each weight, which share the time evenly."""

    def share(request: Request) -> float:
        return request.budget.share(len(sweep.paper))

    def run(request: Request, loaded: Any) -> Result:
        minutes = share(request)
        runs = {
            row.lam: trained(
                request, sweep.recipe, f"lam-{row.lam:g}", minutes, sweep.options(minutes) | {"lam": row.lam}
            )
            for row in sweep.paper
        }  # fmt: skip
        return result(sweep, {lam: judged(done) for lam, done in runs.items()}, runs)

    load = check_sources(sweep.recipe, lambda request: sweep.options(share(request)), ood=sweep.other)
    return Experiment(sweep.recipe, summary, minutes, run, load, IMAGE_SOURCES)


@dataclass(frozen=True)
class Judged:
    """A model's scores, and what it makes of them where it rejects by ``log p(x)`` (equations 9 and 10).

    Attributes:
        figures: by the keys of ``COLUMNS``.
        results: scores of the test part and the other set.
        labels: of the test part.
        inside, outside: ``p(y|x)`` ``(N, K)``, and the class prior where the image was rejected.
        unit: bits per dimension of a nat.
    """

    figures: dict[str, float]
    results: Results
    labels: Tensor
    inside: Tensor
    outside: Tensor
    unit: float


def judged(run: Run) -> Judged:
    """Fits the rejection on training images of a run, and applies it to its scores."""
    task, config = of_images(run)
    data, results = run.record.recipe.load(config), run.results
    assert isinstance(results, Results) and results.ood is not None and results.other is not None
    selective = SelectiveClassifier(task.model).fit(_training_images(task, data))
    threshold = selective.threshold.item() - task.log_units
    scored = {"": results.test, "ood_": results.ood}
    rejected = {key: ~(scores.log_px >= threshold) for key, scores in scored.items()}
    answers = {
        key: torch.where(rejected[key][:, None], selective.class_prior, scores.probabilities)
        for key, scores in scored.items()
    }
    found = run.metrics
    figures = {
        "bits": found["test_bits_per_dim"],
        "error": 100 * found["test_error"],
        "nll": found["test_class_nll_nats"],
        "ood_bits": found["ood_bits_per_dim"],
        "ood_nll": _nll(results.ood, results.other.y),
        "ood_entropy": found["ood_entropy_nats"],
        "ood_entropy_rejecting": torch.special.entr(answers["ood_"]).sum(1).mean().item(),
        "ood_rejected": 100 * rejected["ood_"].double().mean().item(),
        "rejected": 100 * rejected[""].double().mean().item(),
        "auroc": found["ood_auroc"],
    }
    unit = -1 / (task.dim * math.log(2))
    return Judged(figures, results, data.test.y, answers[""], answers["ood_"], unit)


def _training_images(task: ImageTask, data: DataSet) -> Iterator[tuple[Tensor, Tensor]]:
    rows = torch.linspace(0, len(data.train) - 1, min(_FITTED, len(data.train))).long()
    generator = seeded(_NOISE_SEED)
    for part in rows.split(_BATCH):
        yield task.images(dequantized(data.train.x[part], generator)), data.train.y[part]


def _nll(scores: Scores, y: Tensor | None) -> float:
    """Of the other set's own labels, taken as classes; NaN where it has none, or others."""
    if y is None or int(y.min()) < 0 or int(y.max()) >= scores.probabilities.shape[1]:
        return math.nan
    return metrics.nll(scores.probabilities.clamp(min=1e-300).log(), y)


def result(sweep: Sweep, models: dict[float, Judged], runs: dict[float, Run]) -> Result:
    """Table, picture and sentences of a finished sweep."""
    rows = []
    for row in sweep.paper:
        label = f"lambda = {row.lam:g}/D" if row.lam else "lambda = 0"
        published = row._asdict() | {"error": 100 * row.error}
        rows += [Row(label, models[row.lam].figures), Row(label, published, PAPER)]
    title = f"Test part of the data, and {sweep.other}"
    ours = [model.figures for model in models.values()]
    held, broken = sentences(_ORDERINGS, ours, "lambda")
    first = next(iter(runs.values()))
    fitted = min(_FITTED, first.metrics["examples"]["train"])
    conditions = [
        f"Data: {first.metrics['data']}; OOD set: {first.results.metrics['ood']} ({sweep.other}).",
        f"Loss: {loss_of(first.metrics)}.",
        f"Bits per dimension: {first.metrics['bits_per_dim_convention']}.",
        f"Every model: {described(first)}.",
        "Training steps: "
        + ", ".join(f"{run.metrics['steps']} (lambda {lam:g}/D)" for lam, run in runs.items())
        + f", {first.metrics['train_seconds'] / 60:.3g} minutes each.",
        f"An image is rejected where its log p(x) is below that of all {fitted} training images (equations 9 and 10 "
        "of the paper); its prediction is then the class prior p(y).",
        *held,
    ]
    return Result(
        [Table(title, COLUMNS, rows, heading="weight of log p(x)")],
        {"panels": _picture(sweep, models)},
        conditions,
        [*sweep.differences, *broken],
        {"runs": {f"{lam:g}": run.metrics for lam, run in runs.items()}},
    )


def _picture(sweep: Sweep, models: dict[float, Judged]) -> Any:
    shown = 1.0 if 1.0 in models else max(models)
    chosen = models[shown]
    assert chosen.results.ood is not None
    curves = [
        Curve(f"{lam:g}/D" if lam else "0", *_with_outliers(model), model.outside) for lam, model in models.items()
    ]
    bits = (chosen.results.test.log_px * chosen.unit, chosen.results.ood.log_px * chosen.unit)
    return three_panels(bits, f"lambda = {shown:g}/D", sweep.name, sweep.other, curves)


def _with_outliers(model: Judged) -> tuple[Tensor, Tensor]:
    """Confidence of the answers to test part and other set, and whether they are right, which none to the latter is."""
    answers = torch.cat([model.inside, model.outside])
    right = torch.cat([model.inside.argmax(1) == model.labels, torch.zeros(len(model.outside), dtype=torch.bool)])
    return answers.max(1).values, right
