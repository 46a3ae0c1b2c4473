"""Experiments half-moons and flights on small data and budgets."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread
from scipy.stats import norm

from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.reproduce import flights as experiment
from tests.recipes.test_vectors import flights
from tests.reproduce.test_frame import done


def test_half_moons_compares_labels_only_with_all_points(tmp_path):
    found = done("half-moons", tmp_path / "a", minutes=0.03)
    rows = {row.label: row.values for row in found.result.tables[0].rows}
    assert set(rows) == {"labels only", "with unlabelled points"}
    assert rows["with unlabelled points"]["log_px"] < rows["labels only"]["log_px"]
    assert imread(found.paths[1]).std() > 0.05
    assert found.result.record["runs"]["labels only"]["examples"]["train"] == 6


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_flights_stand_beside_their_baselines_and_the_published_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "_GP_ROWS", 60)
    found = done("flights", tmp_path / "a", minutes=0.04, data=flights(tmp_path / "a.npz"))
    rows = {row.label: row for row in found.result.tables[0].rows}
    assert rows["best GP"].values == {"rmse": 38.38, "log_py": 6.91} and "2008" in rows["RealNVP"].source
    raw, turned = (rows[f"least squares, {name}"].values for name in ("features of the file", "clock times turned"))
    assert turned["rmse"] < raw["rmse"] / 2  # what the clock hides is a straight line here
    ours = [row.values["log_py"] for label, row in rows.items() if label.startswith("RealNVP, ")]
    others = [row.values["log_py"] for row in rows.values() if "scikit-learn" in row.source]
    assert found.result.record["margin_nats"] == pytest.approx(min(others) - min(ours))
    assert imread(found.paths[1]).std() > 0.05


def test_flights_need_their_file(tmp_path):
    with pytest.raises(RecipeError, match=r"--data: the experiment 'flights' needs an \.npz file"):
        done("flights", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_gaussian_nll_is_that_of_scipy():
    y, mean, std = np.random.default_rng(0).normal(size=(3, 50))
    std = abs(std) + 0.1
    assert experiment.gaussian_nll(y, mean, std) == pytest.approx(-norm(mean, std).logpdf(y).mean())


def test_flights_says_what_falls_short_of_the_goal_and_of_the_best_baseline():
    baselines = {"line": {"rmse": 42.0, "log_py": 5.2}, "process": {"rmse": 39.0, "log_py": 5.1}}
    assert experiment.shortfalls({"gaussian": {"rmse": 40.0, "log_py": 5.05}}, baselines) == []
    found = experiment.shortfalls({"bayesian": {"rmse": 45.3, "log_py": 5.25}}, baselines)
    assert "45.30, above 41" in found[0] and "0.150 nats above that of the best baseline (process)" in found[1]
