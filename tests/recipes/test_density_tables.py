"""How the recipe ``density`` reads tables: dialects, names, parts, and tables of no use."""

from __future__ import annotations

import csv
import shlex

import numpy as np
import pytest
import torch

from hybridkern.lab.archive import DataError
from hybridkern.lab.recipes.density.checks import cells
from hybridkern.lab.recipes.density.config import DensityConfig
from hybridkern.lab.recipes.density.recipe import RECIPE
from hybridkern.lab.recipes.density.table import read_table
from hybridkern.lab.recipes.recipe import get_recipe
from tests.recipes.tables import table, write
from tests.test_cli import call


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


WHOLE = np.arange(24).reshape(6, 4)


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
