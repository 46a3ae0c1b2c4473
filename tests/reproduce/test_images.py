"""Experiments on images, on small synthetic sets: what stands in their tables, and where it comes from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.evaluation import evaluating
from hybridkern.lab.recipes.images.evaluation import score
from hybridkern.lab.recipes.images.published import MNIST_ROWS, SVHN_ROWS
from hybridkern.lab.recipes.workflow import load_run
from hybridkern.lab.reproduce import mnist, mnist_semi, ood_failure, svhn, sweep
from hybridkern.lab.reproduce.experiment import get_experiment
from hybridkern.lab.reproduce.ordering import Ordering, sentences
from hybridkern.lab.reproduce.workflow import Reproduction
from tests.recipes.images import SMALL, arrays, npz
from tests.reproduce.conftest import done

SHORT = 0.01  # minutes of each model


pytestmark = pytest.mark.usefixtures("one_thread")


def data(folder: Path, shape: tuple[int, ...]) -> dict[str, Any]:
    """A data set and another, darker or brighter one with labels of its own."""
    np.savez(folder / "other.npz", **arrays(40, shape, 3, bright=90))
    return {"data": npz(folder / "data.npz", shape=shape), "ood": str(folder / "other.npz")}


def rows_of(page: Reproduction, source: str) -> list[dict[str, Any]]:
    return [dict(row.values) for row in page.result.tables[0].rows if row.source == source]


def test_a_sweep_stands_beside_the_published_rows_and_is_what_its_models_say(tmp_path, monkeypatch):
    small = SMALL | {"validation": 8, "precision": "fp32"}
    chosen = sweep.Sweep("mnist", "MNIST", "notMNIST", MNIST_ROWS[::2], lambda minutes: small, ("Small.",))
    monkeypatch.setattr(mnist, "EXPERIMENT", sweep.sweep_experiment(chosen, "Small.", 1.0))
    page = done("mnist", tmp_path / "out", minutes=2 * SHORT, **data(tmp_path, (8, 8)))
    assert {path.name for path in page.paths} == {"mnist.md", "panels.png", "results.json"}
    assert imread(tmp_path / "out/panels.png").std() > 0.01
    published = rows_of(page, "Nalisnick et al. 2019")
    assert published[1] | {"error": 2.22} == {
        "lam": 1.0, "bits": 1.26, "error": 2.22, "nll": 0.081, "ood_bits": 6.13, "ood_nll": 2.3, "ood_entropy": 2.3,
    }  # fmt: skip
    assert [row["error"] for row in published] == pytest.approx([0.67, 2.22])
    ours = rows_of(page, "this run")
    for row, folder in zip(ours, ("lam-0", "lam-1"), strict=True):
        assert row == pytest.approx(recomputed(tmp_path / "out/runs" / folder), rel=1e-4, abs=1e-6), folder
    assert 0 < ours[1]["ood_rejected"] <= 100 and ours[1]["ood_entropy_rejecting"] > ours[1]["ood_entropy"]
    record = json.loads((tmp_path / "out/results.json").read_text())["record"]["runs"]
    assert (record["0"]["lam"], record["1"]["lam"]) == (0, 1)
    few = record["1"]["examples"]["train"]  # fewer than the threshold is taken from otherwise
    assert few < sweep._FITTED and any(f"below that of all {few} training" in line for line in page.result.conditions)


def recomputed(folder: Path) -> dict[str, float]:
    """The figures of a run, in NumPy from the model's outputs."""
    record, task = load_run(folder)
    found = record.recipe.load(record.config)
    other = np.load(record.config.ood)
    with evaluating(task):
        lowest = min(
            task.model.log_prob(x).min().item() for x, _ in sweep._training_images(task, found)
        ) - task.dim * math.log(256)  # fmt: skip
    shares = np.bincount(found.train.y, minlength=3) / len(found.train)
    prior = -(shares * np.log(shares)).sum()
    inside, outside = (score(task, x, 1) for x in (found.test.x, torch.from_numpy(other["images"]).flatten(1)))
    p, q = inside.probabilities.numpy(), outside.probabilities.numpy()
    rejected = [scores.log_px.numpy() < lowest for scores in (inside, outside)]
    entropy = -(q * np.log(np.maximum(q, 1e-300))).sum(1)
    higher = (inside.log_px[:, None] > outside.log_px).double().mean().item()
    return {
        "bits": -inside.log_px.mean().item() / 64 / math.log(2),
        "error": 100 * (p.argmax(1) != found.test.y.numpy()).mean(),
        "nll": -np.log(p[np.arange(len(p)), found.test.y]).mean(),
        "ood_bits": -outside.log_px.mean().item() / 64 / math.log(2),
        "ood_nll": -np.log(q[np.arange(len(q)), other["labels"]]).mean(),
        "ood_entropy": entropy.mean(),
        "ood_entropy_rejecting": np.where(rejected[1], prior, entropy).mean(),
        "ood_rejected": 100 * rejected[1].mean(),
        "rejected": 100 * rejected[0].mean(),
        "auroc": higher,
    }


@pytest.mark.parametrize("experiment", [mnist, svhn])
def test_the_model_of_the_paper_is_used_where_there_is_time(experiment):
    long, short = experiment.options(1000.0), experiment.options(1.0)
    assert (long["net"], short["net"]) == ("highway", "conv")
    assert long["hidden"] == {"mnist": 200, "svhn": 300}[experiment.EXPERIMENT.name]
    assert long["levels"] * long["steps"] == {"mnist": 16, "svhn": 24}[experiment.EXPERIMENT.name]


def test_the_published_rows_are_the_weights_that_are_trained():
    assert [row.lam for row in MNIST_ROWS] == [0, 0.01, 1, 10]
    assert [row.lam for row in SVHN_ROWS] == [0, 0.1, 1, 10]


def test_another_set_is_asked_for_before_anything_is_written(tmp_path):
    with pytest.raises(RecipeError, match="--ood: the experiment needs out-of-distribution data: CIFAR-10"):
        done("svhn", tmp_path / "out", data=npz(tmp_path / "data.npz"))
    assert not (tmp_path / "out").exists()


def test_orders_that_hold_and_that_do_not():
    figures = [{"a": 1.0, "b": 3.0, "c": 1.0}, {"a": 2.0, "b": 2.0, "c": 1.0}, {"a": 3.0, "b": 2.5, "c": math.nan}]
    orders = [Ordering("a", "first", True), Ordering("b", "second", False), Ordering("c", "third", True)]
    held, broken = sentences(orders, figures, "x")
    assert held == ["As published, first rises as x rises: 1, 2, 3."]
    assert [text.split(" does")[0] for text in broken] == [
        "Unlike the published figures, second", "Unlike the published figures, third",
    ]  # fmt: skip
    assert "does not fall at every step" in broken[0]
    still = [{"a": 1.0}, {"a": 2.0}, {"a": 2.0}]
    assert Ordering("a", "first", True, strict=False).holds(still)
    assert not Ordering("a", "first", True).holds(still)
    assert not Ordering("a", "first", False, strict=False).holds(still)


def test_semi_supervised_beside_labels_only(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist_semi, "_OPTIONS", SMALL | {"validation": 8, "labels": 12, "precision": "fp32"})
    page = done("mnist-semi", tmp_path / "out", minutes=3 * SHORT, data=npz(tmp_path / "data.npz", shape=(8, 8)))
    assert imread(tmp_path / "out/validation.png").std() > 0.01
    record = page.result.record["runs"]
    assert record["labels only"]["examples"]["train"] == 12
    assert record["with unlabelled images"]["examples"]["train"] == 64
    ours = rows_of(page, "this run")
    assert len(ours) == 3
    assert [row["error"] for row in ours] == [100 * run["test_error"] for run in record.values()]
    assert [row["error"] for row in rows_of(page, "Nalisnick et al. 2019")] == [6.61, 2.21]


def test_what_semi_supervision_falls_short_of():
    assert mnist_semi.shortfalls({"a": 12.0, "b": 10.0, "c": 5.0}) == []
    (short,) = mnist_semi.shortfalls({"a": 12.0, "b": 9.0, "c": 5.0})
    assert short == 'Unlabelled images improve the error of "b" by a factor of 1.80, less than 2.'
    assert len(mnist_semi.shortfalls({"a": 12.0, "b": 9.0, "c": 6.0})) == 2


def test_scores_of_the_known_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(ood_failure, "_OPTIONS", SMALL | {"validation": 8, "lam": 10.0, "precision": "fp32"})
    page = done("ood-failure", tmp_path / "out", minutes=2 * SHORT, **data(tmp_path, (8, 8, 3)))
    assert imread(tmp_path / "out/scores.png").std() > 0.01
    rows = {row.label: row.values for row in page.result.tables[0].rows}
    assert len(rows) == 5
    model, background = (load_run(tmp_path / "out/runs" / name) for name in ("model", "background"))
    assert (model[0].config.redrawn, background[0].config.redrawn) == (0, 0.1)
    assert rows["log p(x)"]["auroc"] == page.result.record["runs"]["model"]["ood_auroc"]
    test = model[0].recipe.load(model[0].config).test.x
    other = torch.from_numpy(np.load(model[0].config.ood)["images"]).flatten(1)
    ratio = [score(model[1], x, 1).log_px - score(background[1], x, 1).log_px for x in (test, other)]
    margin = (ratio[0][:, None] - ratio[1]).sign()  # a tie counts half: on a busy machine neither model may train
    higher = (0.5 + 0.5 * margin.double()).mean().item()
    assert rows["likelihood ratio to the background model"]["auroc"] == pytest.approx(higher)


def test_a_finished_model_is_not_trained_again(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist_semi, "_OPTIONS", SMALL | {"validation": 8, "labels": 12, "precision": "fp32"})
    options = {"minutes": 2 * SHORT, "data": npz(tmp_path / "data.npz", shape=(8, 8))}
    trained = mnist_semi.trained

    def stopping(request, recipe, label, *rest):
        if label == "with-unlabelled-images":
            raise KeyboardInterrupt
        return trained(request, recipe, label, *rest)

    monkeypatch.setattr(mnist_semi, "trained", stopping)
    with pytest.raises(KeyboardInterrupt):
        done("mnist-semi", tmp_path / "out", **options)
    before = torch.load(tmp_path / "out/runs/labels-only/checkpoints/last.ckpt")["global_step"]
    monkeypatch.setattr(mnist_semi, "trained", trained)
    page = done("mnist-semi", tmp_path / "out", resume=True, **options)
    assert page.result.record["runs"]["labels only"]["steps"] == before


def test_names():
    for name in ("mnist", "mnist-semi", "svhn", "digits", "ood-failure"):
        assert get_experiment(name).name == name
