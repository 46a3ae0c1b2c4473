"""The experiment on scikit-learn's digits, cut short: ranges over seeds beside the tutorial's."""

from __future__ import annotations

import io

import pytest
from matplotlib.image import imread
from rich.console import Console

from hybridkern.lab.reproduce import digits
from hybridkern.lab.reproduce.workflow import reproduce

pytestmark = pytest.mark.usefixtures("one_thread")


def test_ranges_are_the_lowest_and_highest_of_the_runs():
    keys = {"test_nll_nats": 150.0, "lattice_share": 1.0, "round_trip_mismatches": 0}
    found = digits._ours([{"test_error": error} | keys for error in (0.12, 0.101, 0.11)])
    assert found == {"error": "10.1-12.0", "nll": "150.0", "off_lattice": "0.0", "mismatches": "0"}


def test_figures_stand_beside_the_tutorials(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "_SEEDS", 1)
    monkeypatch.setattr(digits, "_VARIANTS", digits._VARIANTS[:1])
    page = reproduce("digits", tmp_path / "out", minutes=0.04, seed=5, console=Console(file=io.StringIO()))
    assert imread(tmp_path / "out/ranges.png").std() > 0.01
    ours, theirs, exact = page.result.tables[0].rows
    assert theirs.values == {"error": "9.0-11.9", "nll": "150.3-152.4", "off_lattice": "97.0-98.0"}
    runs = page.result.record["runs"][ours.label]
    assert [run["seed"] for run in runs] == [5]
    assert ours.values["error"] == f"{100 * runs[0]['test_error']:.1f}"
    assert exact.values["off_lattice"] == "0.0" and exact.values["mismatches"] == "0"
    assert all(run["train_seconds"] < 10 and run["stopped_by_the_clock"] for run in runs)
    assert page.result.shortfalls[0].startswith("The time limit ended training")
