"""Recipes on vectors: figures in the units of the data, Bayesian heads that know the training rows, files of a run."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from rich.console import Console
from scipy.integrate import trapezoid
from scipy.stats import norm

from hybridkern.lab.data import DataError
from hybridkern.lab.recipes.cubic import RECIPE as CUBIC_RECIPE
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.evaluation import evaluating
from hybridkern.lab.recipes.flights import clocks, load_flights
from hybridkern.lab.recipes.moons import RECIPE as MOONS
from hybridkern.lab.recipes.recipe import DataShape
from hybridkern.lab.recipes.sampling import sample_run
from hybridkern.lab.recipes.vectors import training
from hybridkern.lab.recipes.vectors.results import score
from hybridkern.lab.recipes.vectors.task import Regression
from hybridkern.lab.recipes.workflow import load_run
from tests.recipes.conftest import run

CUBIC = {"epochs": 12, "starts": 2}


@pytest.fixture(scope="module")
def cubic(tmp_path_factory):
    return run("cubic", tmp_path_factory.mktemp("cubic") / "a", **CUBIC)


def test_run_on_vectors_leaves_figures_and_plots(cubic, tmp_path):
    folder = cubic.pictures[0].parent
    assert {path.name for path in folder.glob("*.png")} == {"log_px.png", "samples.png", "training.png"}
    assert all(imread(path).std() > 0.01 for path in cubic.pictures)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == cubic.metrics and metrics["epochs"] == 12 and len(metrics["validation"]["val_error"]) == 12
    assert "-log p(y|x) - lambda log p(x), lambda = 1" in metrics["objective"]
    again = run("cubic", folder, resume=True, **CUBIC).metrics
    assert {key: again[key] for key in ("test_rmse", "test_nll_nats")} == {
        key: metrics[key] for key in ("test_rmse", "test_nll_nats")
    }
    drawn = np.load(sample_run(folder, 500, tmp_path / "s.npz", 0))["x"]
    assert drawn.shape == (500, 1) and drawn.dtype == np.float32 and 2 < drawn.std() < 6
    assert imread(sample_run(folder, 50, tmp_path / "s.png", 0)).std() > 0.01
    with pytest.raises(RecipeError, match="--class: got 1, expected none: the recipe 'cubic' has no classes"):
        sample_run(folder, 5, tmp_path / "c.npz", 0, label=1)


def test_figures_are_those_of_the_data_in_their_own_units(cubic):
    """Against the posterior of a textbook in float64, on the latents of the loaded model."""
    record, task = load_run(cubic.pictures[0].parent)
    data = record.recipe.load(record.config)
    assert isinstance(task, Regression)
    grid = torch.linspace(-40, 40, 20001)[:, None]
    with torch.no_grad():
        assert trapezoid(task.log_px(grid).double().exp().numpy(), grid[:, 0].numpy()) == pytest.approx(1, abs=2e-3)
        features = [np.c_[task.latent(part.x).double().numpy(), np.ones(len(part))] for part in (data.train, data.test)]
        x_nll = -task.log_px(data.test.x).double().mean().item()
    y, at = data.train.y.double().numpy(), data.test.y.double().numpy()
    centre, scale = y.mean(), y.std()
    noise, precision = (v.item() for v in (task.model.head.noise, task.model.head.prior_precision))
    inverse = np.linalg.inv(precision * np.eye(2) + features[0].T @ features[0] / noise**2)
    mean = features[1] @ (inverse @ features[0].T @ ((y - centre) / scale)) / noise**2 * scale + centre
    std = scale * np.sqrt(noise**2 + np.einsum("ni,ij,nj->n", features[1], inverse, features[1]))
    assert cubic.metrics["test_rmse"] == pytest.approx(np.sqrt(np.mean((at - mean) ** 2)), rel=1e-4)
    assert cubic.metrics["test_class_nll_nats"] == pytest.approx(-norm(mean, std).logpdf(at).mean(), rel=1e-4)
    assert cubic.metrics["test_nll_nats"] == pytest.approx(x_nll, rel=1e-6)


def test_the_best_of_several_first_weights_is_taken(monkeypatch):
    """Of six the three best go on, of which the one that is best then is taken."""
    data = CUBIC_RECIPE.load(CUBIC_RECIPE.config)
    task = CUBIC_RECIPE.build(CUBIC_RECIPE.config, DataShape.of(data))
    task.initialize(data.train.x, data.train.y)
    made: list = []
    losses = {0: [1, 5], 1: [9, 0], 2: [2, 3], 3: [8, 0], 4: [3, 4], 5: [7, 0]}

    def go_on(self, steps):
        if self not in made:
            made.append(self)
        self.loss = losses[made.index(self)].pop(0)

    monkeypatch.setattr(training._Start, "go_on", go_on)
    config = CUBIC_RECIPE.config.updated("cubic", {"starts": 6})
    training.best_start(task, data.train, config, Console(file=io.StringIO()))
    assert [len(rest) for rest in losses.values()] == [0, 1, 0, 1, 0, 1]
    mine, taken, other = (t.model.flow.maps[0].b.item() for t in (task, made[2].task, made[0].task))
    assert mine == taken != other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "a.npz"}, "--data: the recipe 'cubic' draws its own"),
        ({"size": 3}, "--size: got 3, expected a whole number from 10 on"),
        ({"head": "categorical"}, "--set head: got 'categorical', expected another one: the targets are numbers"),
        ({"flow": "glow"}, "--flow: got 'glow', expected one of realnvp, planar"),
        ({"minutes": 0.0}, "--minutes: got 0.0, expected a positive number"),
        ({"dropout": 1.0}, "--dropout: got 1.0, expected a share from 0 to below 1"),
        ({"flow": "realnvp", "starts": 4}, "--starts: got 4, expected 1 without --flow planar"),
    ],
)
def test_settings_out_of_range_are_named(tmp_path, options, message):
    with pytest.raises(RecipeError) as error:
        run("cubic", tmp_path / "a", **options)
    assert message in str(error.value) and not (tmp_path / "a").exists()


def test_a_flow_that_starts_once_needs_no_word_of_it():
    assert CUBIC_RECIPE.config.updated("cubic", {"flow": "realnvp"}).starts == 1
    assert CUBIC_RECIPE.config.updated("cubic", {"flow": "planar"}).starts == 32
    assert CUBIC_RECIPE.config.updated("cubic", {"starts": 4}).starts == 4


def test_training_ends_by_the_clock(tmp_path):
    metrics = run("cubic", tmp_path / "a", epochs=100_000, starts=1, minutes=0.01).metrics
    assert metrics["epochs"] < 2000 and metrics["train_seconds"] < 20


def flights(path, rows=600, test=200, **changed):
    """Flights whose delay grows with the time on the ground and, later in the day, more."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, count in (("train", rows), ("test", test)):
        depart, ground = rng.integers(300, 1500, count), rng.integers(10, 60, count)
        air = rng.integers(30, 300, count)
        x = np.c_[
            rng.integers(0, 30, count), 8 * air, air, (depart - 1) % 1440 + 1, (depart + air + ground - 1) % 1440 + 1,
            rng.integers(0, 7, count), rng.integers(1, 29, count), rng.integers(1, 12, count),
        ]  # fmt: skip
        y = ground + depart / 20 + rng.normal(0, 5, count)
        arrays |= {f"X_{name}": x.astype(np.float32), f"y_{name}": y.astype(np.float32)}
    np.savez(path, **(arrays | changed))
    return str(path)


def test_clock_times_are_turned_one_to_one():
    x = np.array(
        [[5, 700, 100, 1380, 70, 0, 1, 1], [5, 700, 100, 10, 140, 0, 1, 12], [5, 2500, 330, 600, 750, 0, 1, 7.0]]
    )
    turned = clocks(x)
    np.testing.assert_array_equal(turned[:, 3], [1140, 1210, 360])  # ten past midnight is later than eleven at night
    np.testing.assert_array_equal(turned[:, 4], [330, 330, 120])  # thirty minutes on the ground; three hours behind
    np.testing.assert_array_equal(np.delete(turned, (3, 4, 7), 1), np.delete(x, (3, 4, 7), 1))
    np.testing.assert_array_equal(turned[:, 7], [6, 5, 0])  # January follows December; a year begins in July
    depart = (turned[:, 3] + 240) % 1440
    np.testing.assert_array_equal(depart, x[:, 3])
    np.testing.assert_array_equal((turned[:, 4] - 300 + depart + turned[:, 2]) % 1440, x[:, 4])


def test_flights_keep_their_order_in_time(tmp_path):
    data = load_flights(flights(tmp_path / "a.npz"), clock=False)
    with np.load(tmp_path / "a.npz") as arrays:
        x = np.concatenate([data.train.x.numpy(), data.validation.x.numpy()])
        np.testing.assert_array_equal(x, arrays["X_train"])
        np.testing.assert_array_equal(data.test.y.numpy(), arrays["y_test"])
    assert (len(data.train), len(data.validation), len(data.test)) == (540, 60, 200)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"X_train": np.zeros((600, 7))}, "X_train: got shape (600, 7), expected (N, 8) with at least one row"),
        ({"X_test": np.zeros((0, 8)), "y_test": np.zeros(0)}, "X_test: got shape (0, 8), expected (N, 8)"),
        ({"y_test": np.zeros(3)}, "y_test: got shape (3,), expected (200,)"),
        ({"y_train": np.full(600, np.nan)}, "y_train: got float64 values, expected finite numbers only"),
        ({"X_train": np.zeros((3, 8)), "y_train": np.zeros(3)}, "X_train: got 3 rows, expected 10 or more"),
    ],
)
def test_flights_that_cannot_be_used_are_named(tmp_path, changed, message):
    with pytest.raises(DataError) as error:
        load_flights(flights(tmp_path / "a.npz", **changed), clock=True)
    assert message in str(error.value)
    np.savez(tmp_path / "b.npz", a=np.zeros(3))
    with pytest.raises(DataError, match="found the keys 'a', expected 'X_train'"):
        load_flights(tmp_path / "b.npz", clock=True)


@pytest.mark.parametrize("head", ["gaussian", "bayesian"])
def test_flights_are_learned_and_their_density_is_of_cells(tmp_path, head):
    small = {"layers": 4, "hidden": 16, "batch_size": 100, "epochs": 12, "ema": None, "lr": 5e-3, "head": head}
    done = run("flights", tmp_path / "a", data=flights(tmp_path / "a.npz"), **small)
    data = done.record.recipe.load(done.record.config)
    assert done.metrics["test_rmse"] < 0.6 * data.test.y.std().item()
    scores = score(done.task, data.test)
    assert torch.equal(scores.log_px, score(done.task, data.test).log_px)  # noise depends on nothing else
    assert done.metrics["test_class_nll_nats"] == pytest.approx(-scores.log_py.mean().item())
    if head == "bayesian":
        assert float(done.task.model.head.rows) == len(data.train)


@pytest.mark.parametrize("clock", [0, 1])
def test_samples_of_flights_are_whole_numbers_under_the_names_of_what_they_are(tmp_path, clock):
    """The flow sees rows plus noise of width 1, half a unit above the data; samples are rows without it."""
    small = {"layers": 2, "hidden": 4, "batch_size": 100, "epochs": 1, "ema": None, "clock": clock}
    done = run("flights", tmp_path / "a", data=flights(tmp_path / "a.npz"), **small)
    drawn = np.genfromtxt(sample_run(tmp_path / "a", 500, tmp_path / "s.csv", 0), delimiter=",", skip_header=1)
    task = done.task
    with evaluating(task), torch.random.fork_rng():
        torch.manual_seed(0)
        seen = (task.model.flow.sample(500) * task.scale + task.center).double().numpy()
    np.testing.assert_array_equal(drawn, np.floor(seen))
    with open(tmp_path / "s.csv", newline="") as file:
        names = next(csv.reader(file))
    assert names[:3] == ["plane age", "distance", "air time"] and names[5:7] == ["weekday", "day"]
    assert names[3] == ("departure, minutes after 4 a.m." if clock else "departure")
    assert names[7] == ("month, July is 0" if clock else "month")


def test_a_start_that_diverges_is_not_the_best(monkeypatch):
    losses = iter([math.nan, 3.0, 1.0, 2.0, 5.0, 4.0])  # of four starts, and of the two that are left

    class Start(training._Start):
        def go_on(self, steps: int) -> None:
            first, self.loss = self.loss == math.inf, next(losses)
            if first:
                with torch.no_grad():
                    self.task.model.head.log_noise.fill_(self.loss)  # by which it is known

    monkeypatch.setattr(training, "_Start", Start)
    config = CUBIC_RECIPE.config.updated("cubic", {"starts": 4, "size": 50})
    data = CUBIC_RECIPE.load(config)
    task = CUBIC_RECIPE.build(config, DataShape.of(data))
    task.initialize(data.train.x, data.train.y)
    training.best_start(task, data.train, config, Console(file=io.StringIO()))
    assert task.model.head.log_noise.item() == 2.0


def test_moons_use_no_label_but_those_given(tmp_path):
    config = MOONS.config.updated("moons", {"labelled": 7, "data_seed": 3})
    data, few = MOONS.load(config), MOONS.load(config.updated("moons", {"unlabelled": 0}))
    known = data.train.y >= 0
    assert len(data.train) == 1000 and torch.bincount(data.train.y[known]).tolist() == [4, 3]
    order = few.train.x[:, 0].argsort(), data.train.x[known][:, 0].argsort()
    assert torch.equal(few.train.x[order[0]], data.train.x[known][order[1]])
    assert torch.equal(few.train.y[order[0]], data.train.y[known][order[1]])
    metrics = run("moons", tmp_path / "a", epochs=5, layers=2, hidden=8).metrics
    assert metrics["best_epoch"] == 5 and 0 <= metrics["test_error"] <= 1


def test_labelled_moons_are_spread_from_end_to_end():
    data = MOONS.load(MOONS.config.updated("moons", {"labelled": 6, "data_seed": 1}))
    for label, sign in ((0, 1), (1, -1)):
        x = data.train.x[data.train.y == label] - torch.tensor([(0.0, 0.0), (1.0, 0.5)][label])
        angles = torch.atan2(sign * x[:, 1], x[:, 0]).sort().values
        assert angles == pytest.approx(math.pi * torch.tensor([1, 3, 5]) / 6, abs=0.2)  # the middles of its thirds


def test_moons_are_moved_anew_in_training_and_nowhere_else():
    config = MOONS.config.updated("moons", {"layers": 2, "hidden": 4, "jitter": 0.1})
    data = MOONS.load(config)
    task = MOONS.build(config, data)
    seen = []
    task.model.flow.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    x, y = data.train.x, data.train.y
    for _ in range(2):
        task.loss(x, y)
    moves = [shown * task.scale + task.center - x for shown in seen]
    assert all(move.std().item() == pytest.approx(0.1, rel=0.1) for move in moves)
    assert not torch.equal(*moves)
    task.terms(x, y.clamp(min=0))
    assert torch.equal(seen[-1], task.standardized(x))
    with pytest.raises(RecipeError, match=r"--jitter: got -1\.0, expected a finite number that is not negative"):
        MOONS.config.updated("moons", {"jitter": -1.0})


def test_weights_of_the_last_epoch_are_kept_where_validation_chooses_nothing(tmp_path):
    options = {"epochs": 3, "layers": 2, "hidden": 4, "size": 60, "lr": 0.5, "schedule": "constant"}
    last = run("moons", tmp_path / "last", **options)
    best = run("moons", tmp_path / "best", **options, keep="best")
    losses = last.metrics["validation"]["val_loss"]
    assert losses == best.metrics["validation"]["val_loss"] and losses.index(min(losses)) != 2
    assert last.metrics["best_epoch"] == 3 and best.metrics["best_epoch"] == losses.index(min(losses)) + 1
    data = MOONS.load(last.record.config)
    for done, epoch in ((last, 2), (best, losses.index(min(losses)))):
        scores = score(done.task, data.validation)
        assert -(scores.log_py + scores.log_px).mean().item() == pytest.approx(losses[epoch], rel=1e-4)
