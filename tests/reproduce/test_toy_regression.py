"""Experiment toy-regression: its baselines against SciPy, counting of modes, and a run on a tiny budget."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread
from scipy.integrate import quad
from scipy.stats import norm

from hybridkern.lab.recipes.cubic import draw
from hybridkern.lab.reproduce.toy_regression import figures, gaussian_process, kernel_density, modes, truth
from tests.reproduce.test_frame import done


def test_truth_is_the_mixture_that_is_drawn_from():
    at = np.array([-4.3, 0.1, 2.0, 6.0])
    expected = np.mean([norm(m, s).pdf(at) for m, s in ((-4, 0.4), (0, 0.6), (4, 0.4))], axis=0)
    np.testing.assert_allclose(np.exp(truth().log_px(at)), expected, rtol=1e-12)
    x = draw(200_000, np.random.default_rng(0)).x.numpy()[:, 0]
    share = np.mean((x > -0.5) & (x < 0.5))
    assert share == pytest.approx(quad(lambda v: np.exp(truth().log_px(np.array([v])))[0], -0.5, 0.5)[0], abs=0.004)
    y = draw(200_000, np.random.default_rng(1))
    rest = (y.y - y.x[:, 0] ** 3).numpy()
    outer = abs(y.x.numpy()[:, 0]) > 2.5
    assert rest[outer].std() == pytest.approx(3, rel=0.02) and rest[~outer].std() == pytest.approx(20, rel=0.02)


def test_baselines_come_near_what_can_be_had():
    train, test = draw(250, np.random.default_rng(2)), draw(2000, np.random.default_rng(3))
    process, density, best = (figures(m, test) for m in (gaussian_process(train, 0), kernel_density(train), truth()))
    assert process["rmse"] < 13 and process["log_py"] < 4.1 and "log_px" not in process
    assert best["log_px"] < density["log_px"] < best["log_px"] + 0.2 and density["modes"] == best["modes"] == 3


@pytest.mark.parametrize(
    ("density", "count"),
    [
        ([0, 1, 0, 2, 0, 1, 0], 3),
        ([0, 1, 0.95, 2, 0], 1),  # a ripple is no mode
        ([0, 0.04, 0, 1, 0], 1),  # nor is what hardly anything is drawn from
        ([0, 1, 0.5, 1], 1),  # the second has no far side here
        ([1, 0], 1),
    ],
)
def test_modes_are_counted(density, count):
    assert modes(np.array(density, dtype=float)) == count


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_run_on_a_tiny_budget_compares_four_models(tmp_path):
    found = done("toy-regression", tmp_path / "a", minutes=0.02)
    table = found.result.tables[0]
    assert [row.label for row in table.rows] == [
        "hybrid model", "Gaussian process", "kernel density", "the true distribution",
    ]  # fmt: skip
    values = table.rows[0].values
    assert set(values) == {column.key for column in table.columns}
    assert values["rmse"] < 40 and values["log_px"] < 3 and values["std_far"] > values["std_near"] > 0
    assert imread(found.paths[1]).std() > 0.05
    assert any("no numbers" in sentence for sentence in found.result.conditions)
    assert any("time limit ended training" in sentence for sentence in found.result.shortfalls)
