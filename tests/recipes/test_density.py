"""The recipe ``density``: figures in a table's own units, rounded columns, samples, tables of no use."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from rich.console import Console
from scipy.integrate import trapezoid

import hybridkern
from hybridkern.lab.archive import DataError
from hybridkern.lab.recipes.density import recipe, results, toy
from hybridkern.lab.recipes.density.recipe import RECIPE
from hybridkern.lab.recipes.density.toy import DRAWN
from hybridkern.lab.recipes.density.training import ClockedCosine
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.evaluation import evaluating
from hybridkern.lab.recipes.report import result_table
from hybridkern.lab.recipes.sampling import sample_run
from hybridkern.lab.recipes.workflow import evaluate_run, load_run, stored_metrics, train
from tests.recipes.conftest import StopAt, run, without_pictures
from tests.recipes.tables import table, write

SMALL = {"layers": 2, "hidden": 8, "bins": 4, "batch_size": 100, "epochs": 4}
PLOTS = {"corner.png", "training.png", "log_px.png"}


undrawn = without_pictures(recipe, toy)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("density")
    return run("density", folder / "a", data=write(folder / "a.csv", table()), **SMALL)


def test_run_leaves_figures_and_plots(done):
    folder = done.pictures[0].parent
    assert {path.name for path in folder.glob("*.png")} == PLOTS
    assert all(imread(path).std() > 0.01 for path in done.pictures)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == done.metrics
    assert metrics["columns"] == ["a", "b", "steps"] and metrics["steps_of_columns"] == [0, 0, 5]
    assert metrics["examples"] == {"train": 320, "validation": 40, "test": 40}
    assert "in nats of the data's own units" in metrics["nll_convention"] and "steps" in metrics["nll_convention"]
    assert "lam" not in metrics and metrics["round_trip_max_error_deviations"] < 1e-3
    with io.StringIO() as said:
        Console(file=said, width=200).print(result_table("", {"this run": metrics}))
        assert "round-trip error, standard deviations" in said.getvalue()  # of columns in any unit
        assert "round-trip error, units" not in said.getvalue()
    _, again, _ = evaluate_run(folder)
    assert again == {key: metrics[key] for key in again}


def test_density_has_the_volume_one_in_the_units_of_the_table(undrawn, tmp_path):
    values = 1000 + 50 * np.random.default_rng(0).gamma(3, size=(300, 1))
    found = run("density", tmp_path / "a", data=write(tmp_path / "a.csv", values, ""), **SMALL)
    grid = torch.linspace(0, 3000, 20_001, dtype=torch.float64)[:, None]
    with evaluating(found.task):
        p = found.task.log_px(grid).exp().numpy()
    assert trapezoid(p, grid[:, 0].numpy()) == pytest.approx(1, abs=1e-3)
    data = RECIPE.load(found.record.config)
    with evaluating(found.task):
        assert found.metrics["test_nll_nats"] == pytest.approx(-found.task.log_px(data.test.x).mean().item())
    train, test = data.train.x.numpy(), data.test.x.numpy()
    log_p = -0.5 * ((test - train.mean()) / train.std(ddof=1)) ** 2 - np.log(train.std(ddof=1) * np.sqrt(2 * np.pi))
    assert found.metrics["gaussian_nll_nats"] == pytest.approx(-log_p.mean())


@pytest.mark.parametrize(
    ("flow", "options"), [("maf", {}), ("realnvp", {}), ("residual", {}), ("residual", {"net": "dense"})]
)
def test_every_flow_learns(undrawn, tmp_path, flow, options):
    values = np.random.default_rng(0).normal(size=(300, 2)) * [1, 100]
    values[:, 1] += 100 * values[:, 0] ** 2
    found = run("density", tmp_path / "a", data=write(tmp_path / "a.csv", values, "a,b"), flow=flow,
                **SMALL | {"layers": 3, "epochs": 15, "lr": 2e-2} | options)  # fmt: skip
    assert found.metrics["test_nll_nats"] < found.metrics["gaussian_nll_nats"]
    assert found.metrics["flow"] == flow and found.metrics["round_trip_max_error_deviations"] < 1e-3


def test_samples_are_rows_of_the_table(done, tmp_path):
    folder = done.pictures[0].parent
    path = sample_run(folder, 500, None, 0)
    assert path == folder / "sampled.csv"
    with open(path, newline="") as file:
        names, *rows = csv.reader(file)
    assert names == ["a", "b", "steps"] and len(rows) == 500
    x = np.array(rows, dtype=float)
    inside = x[(x[:, 2] >= 0) & (x[:, 2] <= 15)]
    assert len(inside) > 350 and set(inside[:, 2]) <= {0, 5, 10, 15}
    assert 4e6 < np.median(x[:, 0]) < 6e6 and np.abs(np.median(x[:, 1])) < 2e-3
    np.testing.assert_allclose(np.load(sample_run(folder, 500, tmp_path / "s.npz", 0))["x"], x, rtol=1e-8)
    assert imread(sample_run(folder, 50, tmp_path / "s.png", 0)).std() > 0.01
    cold = np.load(sample_run(folder, 5, tmp_path / "cold.npz", 0, temperature=0.0))["x"]
    np.testing.assert_array_equal(cold, cold[:1].repeat(5, 0))


def test_a_resumed_run_equals_the_whole_one(undrawn, tmp_path):
    data = write(tmp_path / "a.csv", np.concatenate([table(1200)]))
    whole = run("density", tmp_path / "whole", data=data, **SMALL)
    with pytest.raises(KeyboardInterrupt):
        run("density", tmp_path / "cut", data=data, extra=(StopAt(2),), **SMALL)
    resumed = run("density", tmp_path / "cut", resume=True)
    for name, value in whole.task.state_dict().items():
        assert torch.equal(value, resumed.task.state_dict()[name]), name
    assert whole.metrics["test_nll_nats"] == resumed.metrics["test_nll_nats"]


def test_the_training_curve_of_a_run_that_became_longer_has_points_to_its_end(undrawn, tmp_path):
    """The last point of the shorter run was at its end, a share that the longer one comes to later."""
    data = write(tmp_path / "a.csv", table(120))
    run("density", tmp_path / "a", data=data, **SMALL)
    longer = run("density", tmp_path / "a", resume=True, epochs=12).metrics["training"]
    whole = run("density", tmp_path / "b", data=data, **SMALL | {"epochs": 12}).metrics["training"]
    assert longer["epoch"] == whole["epoch"] == [float(epoch) for epoch in range(1, 13)]
    assert longer["loss"] == whole["loss"]


def test_training_ends_early_and_keeps_the_best_epoch(undrawn, tmp_path):
    data = write(tmp_path / "a.csv", table(120))
    found = run(
        "density", tmp_path / "a", data=data, **SMALL | {"epochs": 500, "patience": 3, "lr": 3e-2, "hidden": 64}
    )
    losses = found.metrics["validation"]["val_nll"]
    assert len(losses) < 500 and found.metrics["best_epoch"] == losses.index(min(losses)) + 1
    assert found.metrics["epochs"] == found.metrics["best_epoch"] + 4


def test_a_run_of_one_epoch_has_a_curve(undrawn, tmp_path):
    options = SMALL | {"epochs": 1, "batch_size": 8}
    found = run("density", tmp_path / "a", data=write(tmp_path / "a.csv", table()), **options).metrics
    assert found["training"]["epoch"] == pytest.approx(np.arange(1, 21) / 20)  # 40 steps, two for each value
    assert np.mean(found["training"]["loss"]) == pytest.approx(found["validation"]["val_loss"][0], abs=1)


def test_the_learning_rate_follows_the_clock(undrawn, tmp_path):
    data, rates = write(tmp_path / "a.csv", table()), []

    class Watch(ClockedCosine):
        def on_train_batch_start(self, trainer, *args):
            super().on_train_batch_start(trainer, *args)
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    watch = Watch(1e-3, 100_000, 1.0)
    options = SMALL | {"epochs": 100_000, "schedule": "constant", "patience": 100_000, "minutes": 1 / 60}
    train("density", {"data": data, **options}, tmp_path / "a", console=Console(file=io.StringIO()), extra=(watch,))
    assert rates == sorted(rates, reverse=True) and rates[0] > 0.9e-3 and rates[-1] < 1e-4


def test_test_rows_are_those_that_were_asked_for(tmp_path):
    np.savez(tmp_path / "both.npz", X_train=table(80), X_test=table(60, seed=1))
    np.savez(tmp_path / "one.npz", x=table(80))
    np.savez(tmp_path / "none.npz", X_train=table(80), X_test=table(80)[:0])
    for data, test, fault in (
        ("both", "one", r"both\.npz: holds X_test, a test part of its own"),
        ("one", "both", r"both\.npz: holds X_test, a test part of its own"),
        ("one", "one", r"--test-data: got .*one\.npz, the file of --data, all of which is trained on"),
        ("none", None, r"none\.npz: X_test: holds no row"),
    ):
        other = None if test is None else str(tmp_path / f"{test}.npz")
        with pytest.raises((RecipeError, DataError), match=fault):
            run("density", tmp_path / "run", data=str(tmp_path / f"{data}.npz"), test_data=other, **SMALL)
        assert not (tmp_path / "run").exists()


def test_runs_of_older_versions_with_two_test_parts_are_read_as_they_were(tmp_path, monkeypatch):
    """The part in the file was left out."""
    np.savez(tmp_path / "both.npz", X_train=table(80), X_test=table(60, seed=1))
    np.savez(tmp_path / "one.npz", x=table(70, seed=2))
    options = {"data": str(tmp_path / "both.npz"), "test_data": str(tmp_path / "one.npz"), **SMALL}
    with pytest.raises(DataError, match=r"both\.npz: holds X_test"):
        run("density", tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
    with monkeypatch.context() as patch:
        patch.setattr(recipe, "RECIPE", dataclasses.replace(RECIPE, check=lambda config: None))
        figures = run("density", tmp_path / "run", **options).metrics
    assert figures["examples"]["test"] == 70
    assert evaluate_run(tmp_path / "run")[1].items() <= figures.items()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--data: the recipe 'density' needs a table"),
        ({"data": "a.txt"}, "expected a file ending in .csv or .npz"),
        ({"data": "none.csv"}, "no such file"),
        ({"lam": 1.0}, "--lam: got 1.0, expected none"),
        ({"flow": "glow"}, "--flow: got 'glow', expected one of nsf, maf, realnvp, residual"),
        ({"bins": 1}, "--bins: got 1, expected a whole number from 2 on"),
    ],
)
def test_settings_out_of_range_are_named(tmp_path, options, message):
    with pytest.raises((RecipeError, DataError)) as error:
        run("density", tmp_path / "a", **options)
    assert message in str(error.value) and not (tmp_path / "a").exists()


def test_samples_keep_the_digits_of_large_numbers():
    """Identifiers of eleven digits, times in milliseconds, and steps of 0.1 as they are written."""
    text = results.as_csv(np.array([[12345678901.0, 1.7e12 + 3, 0.1 + 0.2]]), ["id", "time", "step"])
    assert text == "id,time,step\n12345678901,1700000000003,0.3\n"


def test_drawn_densities_are_what_they_are_called():
    drawn = {name: draw(20_000, np.random.default_rng(0)) for name, draw in DRAWN.items()}
    assert all(x.shape == (20_000, 2) and np.abs(x).max() < 4.5 for x in drawn.values())
    square = np.floor(drawn["checkerboard"] / 2).astype(int) + 2
    assert set(map(tuple, square)) == {(i, j) for i in range(4) for j in range(4) if (i + j) % 2 == 0}
    radius = np.linalg.norm(drawn["rings"], axis=1)
    assert np.quantile(np.abs(radius - np.round(radius)), 0.99) < 0.25
    assert np.bincount((radius > 1.5).astype(int)).min() > 9000


def test_a_drawn_density_is_learnt_and_read_back(tmp_path):
    found = run("toy-density", tmp_path / "a", density="rings", size=300, flow="realnvp", layers=2, hidden=8, epochs=2)
    assert {path.name for path in (tmp_path / "a").glob("*.png")} == PLOTS
    _, task = load_run(tmp_path / "a")
    assert torch.equal(task.center, found.task.center) and found.metrics["examples"]["test"] == 5000
    with pytest.raises(RecipeError, match="the recipe 'toy-density' draws its own"):
        run("toy-density", tmp_path / "b", data="a.csv")


@pytest.mark.parametrize("flow", ["nsf", "residual"])
def test_one_test_row_and_the_flow_by_itself(undrawn, tmp_path, flow):
    """Of one row there is no standard error; the flow of a run folder needs no recipe."""
    values = table(100)
    np.savez(tmp_path / "t.npz", X_train=values, X_test=values[:1])
    done = run("density", tmp_path / "run", data=str(tmp_path / "t.npz"), flow=flow, **SMALL | {"epochs": 1})
    assert done.metrics["test_nll_standard_error"] is None
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test_nll_standard_error"] is None
    loaded, x = hybridkern.load(tmp_path / "run"), torch.zeros(2, 3)
    assert torch.equal(loaded.log_prob(x), done.task.flow.eval().log_prob(x))


def test_figures_that_are_not_finite_are_said(undrawn, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "score", lambda task, x: torch.full((len(x),), -math.inf, dtype=torch.float64))
    done = run("density", tmp_path / "run", data=write(tmp_path / "t.csv", table(100)), **SMALL | {"epochs": 1})
    assert done.metrics["test_nll_nats"] is None and stored_metrics(tmp_path / "run")["test_nll_nats"] is None
    console = Console(file=io.StringIO(), width=100)
    console.print(result_table("", {"": done.metrics}))
    assert re.search(r"test NLL, nats per example.*not finite", console.file.getvalue())
