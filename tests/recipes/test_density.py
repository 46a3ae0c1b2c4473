"""The recipe ``density``: figures in a table's own units, rounded columns, samples, tables of no use."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from rich.console import Console
from scipy.integrate import trapezoid

import hybridkern
from hybridkern.lab.archive import DataError
from hybridkern.lab.recipes.density import recipe, results, toy
from hybridkern.lab.recipes.density.checks import cells
from hybridkern.lab.recipes.density.config import DensityConfig
from hybridkern.lab.recipes.density.recipe import RECIPE
from hybridkern.lab.recipes.density.table import read_table
from hybridkern.lab.recipes.density.toy import DRAWN
from hybridkern.lab.recipes.density.training import ClockedCosine
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.evaluation import evaluating
from hybridkern.lab.recipes.recipe import get_recipe
from hybridkern.lab.recipes.report import result_table
from hybridkern.lab.recipes.sampling import sample_run
from hybridkern.lab.recipes.workflow import evaluate_run, load_run, stored_metrics, train
from tests.recipes.conftest import StopAt, run, without_pictures
from tests.test_cli import call

SMALL = {"layers": 2, "hidden": 8, "bins": 4, "batch_size": 100, "epochs": 4}
PLOTS = {"corner.png", "training.png", "log_px.png"}


def table(rows: int = 400, seed: int = 0) -> np.ndarray:
    """Two numbers that depend on each other, and a rounded one, in units far from 1."""
    rng = np.random.default_rng(seed)
    a = 5e6 + 2e5 * rng.normal(size=rows)
    return np.stack([a, 1e-3 * (np.sin(a / 2e5) + 0.3 * rng.normal(size=rows)), 5 * rng.integers(0, 4, rows)], 1)


def write(path: Path, values: np.ndarray, names: str = "a,b,steps", delimiter: str = ",") -> str:
    lines = [names.replace(",", delimiter)] * bool(names)
    lines += [delimiter.join(repr(float(value)) for value in row) for row in values]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


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
    assert "lam" not in metrics and metrics["round_trip_max_abs_error"] < 1e-3
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
    assert found.metrics["flow"] == flow and found.metrics["round_trip_max_abs_error"] < 1e-3


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


def test_numpy_files_and_their_parts(tmp_path):
    x = table()
    np.savez(tmp_path / "one.npz", anything=x, y=np.zeros(400))
    np.savez(tmp_path / "parts.npz", X_train=x[:300], X_test=x[300:], feature_names=np.array(["p", "q", "r"]))
    assert read_table(tmp_path / "one.npz").names == ("x1", "x2", "x3")
    parts = read_table(tmp_path / "parts.npz", ["q"])
    assert parts.names == ("p", "r") and parts.test is not None
    np.testing.assert_array_equal(parts.test, x[300:, [0, 2]])
    np.savez(tmp_path / "text.npz", x=np.array([["a", "b"]]))
    with pytest.raises(DataError, match="x: got text, expected numbers"):
        read_table(tmp_path / "text.npz")
    np.savez(tmp_path / "two.npz", a=x, b=x)
    with pytest.raises(DataError, match="expected 'X_train', 'x' or one array"):
        read_table(tmp_path / "two.npz")
    data = RECIPE.load(DensityConfig(data=str(tmp_path / "parts.npz")))
    assert (len(data.train), len(data.validation), len(data.test)) == (270, 30, 100)


@pytest.mark.parametrize(
    ("text", "names", "first"),
    [
        ('"height, cm";"weight, kg"\n1.5;2\n2;3\n', ("height, cm", "weight, kg"), (1.5, 2.0)),
        ("a,b,\n1,2,\n3,4,\n", ("a", "b"), (1.0, 2.0)),
        ('"a", "b"\n1, "2"\n3, 4\n', ("a", "b"), (1.0, 2.0)),
        ("\ufeffa\tb\r\n1\t2\r\n\r\n3\t4\r\n", ("a", "b"), (1.0, 2.0)),
    ],
)
def test_dialects_of_csv(tmp_path, text, names, first):
    (tmp_path / "t.csv").write_bytes(text.encode())
    found = read_table(tmp_path / "t.csv")
    assert found.names == names and tuple(found.values[0]) == first and found.values.shape == (2, 2)


def test_decimal_commas_without_names_are_said(tmp_path):
    (tmp_path / "t.csv").write_text("1,5;2,5\n3,5;4,5\n")
    with pytest.raises(DataError, match="expected numbers with a decimal point"):
        read_table(tmp_path / "t.csv")


def test_a_quote_that_nothing_closes_hides_no_rows(tmp_path):
    (tmp_path / "t.csv").write_text('a,b,c\n1,2,"foo\n3,4,bar\n5,6,"baz\n7,8,q\n')
    with pytest.raises(DataError, match="line 4: cannot be read as CSV"):
        read_table(tmp_path / "t.csv", drop=("c",))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((3, 2)), "feature_names": np.array(["a", "a"])}, "two columns are named 'a'"),
        ({"x": np.ones((3, 2)), "feature_names": np.array(["a"])}, r"feature_names: got <U1 of shape \(1,\), expected"),
        ({"x": np.full((3, 2), 2**53 + 1)}, "x: got 9007199254740993 in row 1, column 1"),
    ],
)
def test_numpy_files_that_would_be_read_otherwise(tmp_path, arrays, message):
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "t.npz")


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


def test_names_of_bytes(tmp_path):
    np.savez(tmp_path / "t.npz", x=np.ones((3, 2)), feature_names=np.array([b"a", b"b"]))
    assert read_table(tmp_path / "t.npz").names == ("a", "b")


def test_every_row_is_in_one_part(tmp_path):
    data = RECIPE.load(DensityConfig(data=write(tmp_path / "a.csv", table(), delimiter=";")))
    rows = torch.cat([data.train.x, data.validation.x, data.test.x]).numpy()
    np.testing.assert_array_equal(rows[rows[:, 0].argsort()], table()[table()[:, 0].argsort()])
    other = write(tmp_path / "b.csv", table(60, seed=1))
    data = RECIPE.load(DensityConfig(data=str(tmp_path / "a.csv"), test_data=other))
    np.testing.assert_array_equal(data.test.x.numpy(), table(60, seed=1))


def test_steps_of_rounded_columns():
    rng = np.random.default_rng(0)
    columns = {
        0.0: rng.normal(size=500), 0.1: np.round(rng.normal(size=500), 1), 7.0: 3 + 7 * rng.integers(0, 2, 500),
    }  # fmt: skip
    steps, loose = cells(np.stack([*columns.values()], 1))
    np.testing.assert_allclose(steps, list(columns), rtol=1e-6)
    assert not loose.any()
    for first, step, digits in ((5412345.1, 0.1, 1), (1.7e9, 0.001, 3), (0.0, 0.1, 1)):
        column = np.round(first + step * rng.integers(0, 200, 2000), digits)
        (found,), _ = cells(column[:, None])
        lowest, counts = column.min(), np.arange(200)
        wanted = [f"{float(f'{lowest + step * count:.{digits}f}'):.15g}" for count in counts]
        assert [f"{lowest + found * count:.15g}" for count in counts] == wanted
    irregular = rng.choice([0.0, 1.0, np.pi], 500)
    steps, loose = cells(irregular[:, None])
    assert steps[0] == 0 and loose[0]


def changed(column: int, row: int, text: str) -> str:
    lines = [[repr(float(value)) for value in values] for values in table(80)]
    lines[row][column] = text
    return "a,b,steps\n" + "\n".join(",".join(line) for line in lines) + "\n"


def of(values: np.ndarray, names: str = "a,b,steps") -> str:
    return names + "\n" + "\n".join(",".join(repr(float(value)) for value in row) for row in values) + "\n"


BASE = table(80)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed(1, 4, "Berlin"), "column 'b': got text ('Berlin' in line 6), expected numbers; leave the column out"),
        (changed(1, 4, ""), "column 'b': 1 value is missing (the first in line 6), expected none"),
        (changed(0, 9, "NaN"), "column 'a': 1 value is missing (the first in line 11), expected none"),
        (changed(0, 9, "inf"), "column 'a': got inf in line 11, expected finite numbers"),
        (changed(0, 9, "1,2"), "line 11: got 4 values, expected 3"),
        (of(BASE * [1, 0, 1]), "column 'b': every value is 0, expected at least two; leave the column out"),
        (of(np.c_[BASE[:, :2], 3 * BASE[:, 0] - 1]), "column 'steps': is a linear function of 'a'"),
        (of(np.c_[BASE[:, :2], BASE[:, 0] + 1e8 * BASE[:, 1]]), "is a linear function of others"),
        (of(BASE * [1, 1e-200, 1]), "column 'b': got a width of"),
        (of(BASE[:20]), "got 20 rows, expected at least 50 for 3 columns"),
        (of(np.tile(BASE[:10], (8, 1))), "only 10 of 80 rows differ, expected at least 50"),
        (of(BASE, "a,a,steps"), "two columns are named 'a'"),
        (changed(1, 4, "1_2"), "column 'b': got text ('1_2' in line 6), expected numbers;"),
        (changed(1, 4, '"1,5"'), "column 'b': got text ('1,5' in line 6), expected numbers with a decimal point"),
        (changed(1, 4, '"5'), "cannot be read as CSV (unexpected end of data)"),
        (changed(1, 4, str(2**53 + 1)), "column 'b': got 9007199254740993 in line 6, which float64 cannot hold"),
        ("a,b\n", "holds names alone, expected rows of numbers"),
        ("", "is empty, expected rows of numbers"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_used_are_named_in_one_line(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    error = call("train", "density", "--data", tmp_path / "t.csv", "--out", tmp_path / "out", code=1).stderr
    assert error.startswith("hybridkern: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


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


WHOLE = np.arange(24).reshape(6, 4)


@pytest.mark.parametrize(
    ("first", "rows", "names"),
    [
        ("2019,2020,2021", BASE[:, [0, 1, 0]], ("2019", "2020", "2021")),
        ("0,1,2", BASE, ("0", "1", "2")),  # of which the last holds whole numbers
        ("0,1,2,3", WHOLE, ("0", "1", "2", "3")),
        ("0,1,2", WHOLE[:, :3], None),  # may be a row
        ("3,1,2,0", WHOLE, None),
        ("2019,2019,2021", BASE[:, [0, 1, 0]], None),
        ("2019.5,2020,2021", BASE[:, [0, 1, 0]], None),
        ("1,2,3", BASE[:0], None),
    ],
)
def test_a_first_line_of_numbers_may_be_one_of_names(tmp_path, caplog, first, rows, names):
    lines = [",".join(repr(value).removesuffix(".0") for value in row) for row in rows.tolist()]
    (tmp_path / "t.csv").write_text("\n".join([first, *lines]) + "\n")
    found = read_table(tmp_path / "t.csv")
    assert found.names == (names or tuple(f"x{i + 1}" for i in range(len(first.split(",")))))
    assert len(found.values) == len(rows) + (names is None)
    assert ("is read as names of columns" in caplog.text) == (names is not None)


@pytest.mark.parametrize(
    ("text", "names", "rows"),
    [
        ('"2019","2020"\n5,7\n3,2\n', ("2019", "2020"), 2),  # as R writes counts by year
        ('\n"1.5"; "2,5"\n5;7\n', ("1.5", "2,5"), 1),
        ('"","2019"\n"1",5\n"2",7\n', ("2019",), 2),  # beside the numbers of its rows
        ('"2019","2020"\n"5","7"\n"3","2"\n', ("x1", "x2"), 3),  # everything is in quotes
        ('"1","2"\n"5",7\n"3","2"\n', ("x1", "x2"), 3),  # or nearly so
        ('"2019",2020\n5,7\n3,2\n', ("x1", "x2"), 3),
    ],
)
def test_numbers_in_quotes_above_others_are_names(tmp_path, caplog, text, names, rows):
    (tmp_path / "t.csv").write_text(text)
    found = read_table(tmp_path / "t.csv")
    assert found.names == names and len(found.values) == rows
    noted = "is read as names of columns: numbers in quotes above numbers without" in caplog.text
    assert noted == names[0].isdecimal()


@pytest.mark.parametrize(
    ("head", "numbers", "names"),
    [
        (",a,b", range(4), ("a", "b")),  # as pandas writes a table
        ('"","a","b"', (1, 2, 3, 4), ("a", "b")),  # as R does
        (",a,b", (7, 0, 3, 12), ("a", "b")),  # of a part of the rows
        (",a,b", (1, 2, 2, 3), ("", "a", "b")),
        (",a,b", (0.5, 1, 2, 3), ("", "a", "b")),
        ("id,a,b", range(4), ("id", "a", "b")),
    ],
)
def test_a_column_that_numbers_the_rows_is_left_out(tmp_path, caplog, head, numbers, names):
    lines = [f"{number},{a},{b}" for number, (a, b) in zip(numbers, BASE[:4, :2], strict=True)]
    (tmp_path / "t.csv").write_text("\n".join([head, *lines]) + "\n")
    found = read_table(tmp_path / "t.csv")
    assert found.names == names and np.array_equal(found.values[:, -2:], BASE[:4, :2])
    assert ("the first column is left out" in caplog.text) == (len(names) == 2)


def test_samples_keep_the_digits_of_large_numbers():
    """Identifiers of eleven digits, times in milliseconds, and steps of 0.1 as they are written."""
    text = results.as_csv(np.array([[12345678901.0, 1.7e12 + 3, 0.1 + 0.2]]), ["id", "time", "step"])
    assert text == "id,time,step\n12345678901,1700000000003,0.3\n"


@pytest.mark.parametrize("name", ["height, cm", "", 'a "b"', "plain", "it's"])
def test_the_option_of_an_error_leaves_the_column_out(tmp_path, name):
    rows = np.c_[np.full(80, 3.0), table(80)[:, :2]]
    with open(tmp_path / "t.csv", "w", newline="") as file:
        csv.writer(file).writerows([[name, "x", "y"], *rows.tolist()])
    error = call("train", "density", "--data", tmp_path / "t.csv", "--out", tmp_path / "out", code=1).stderr
    option, setting = shlex.split(error.rpartition(" with ")[2])
    assert option == "--set"
    config = get_recipe("density").config
    dropped = config.updated("density", config.parsed("density", [setting])).dropped
    assert dropped == [name] and read_table(tmp_path / "t.csv", dropped).names == ("x", "y")


def test_a_column_can_be_left_out(tmp_path):
    (tmp_path / "t.csv").write_text(changed(1, 4, "Berlin"))
    data = RECIPE.load(DensityConfig(data=str(tmp_path / "t.csv"), drop="b"))
    assert data.names == ("a", "steps")
    with pytest.raises(DataError, match="--set drop: got 'c', expected some of 'a', 'b', 'steps'"):
        RECIPE.load(DensityConfig(data=str(tmp_path / "t.csv"), drop="c"))


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
