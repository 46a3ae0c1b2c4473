"""Experiments on variational autoencoders, cut short: what stands in their tables, and what they say of targets."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from matplotlib.image import imread

from hybridkern.lab.recipes import digits_vae as digits_vae_recipe
from hybridkern.lab.recipes import mnist_vae
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.workflow import evaluate_run
from hybridkern.lab.reproduce import digits_vae, vae_mnist, vae_runs
from hybridkern.lab.reproduce.budget import Budget
from tests.recipes.conftest import without_pictures
from tests.recipes.images import npz
from tests.reproduce.conftest import done

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")


undrawn = without_pictures(digits_vae_recipe, mnist_vae)


def test_digits_stand_beside_classifiers_of_the_labels_alone(tmp_path, monkeypatch):
    every = vae_runs.settings(digits_vae._LAMS)
    names = [setting.name for setting in every]
    assert names[:5] == ["M2", "M1 and a linear classifier", "M1+M2", "CCVAE", "latent mixture"] and len(names) == 8
    assert sum(setting.share for setting in every) == 7  # M1+M2 is one model
    monkeypatch.setattr(digits_vae, "settings", lambda lams: [every[0], every[3], every[7]])
    page = done("digits-vae", tmp_path / "out", minutes=0.06)
    assert imread(tmp_path / "out/validation.png").std() > 0.01
    rows = {row.label: row for row in page.result.tables[0].rows}
    ours = [label for label, row in rows.items() if row.source == "this run"]
    assert ours == ["M2", "CCVAE", "hybrid VAE, lambda = 1"]
    assert 10 < rows["logistic regression, labels only"].values["error"] < 30
    assert rows["CCVAE"].values["bound"] > 50
    _, metrics, _ = evaluate_run(tmp_path / "out/runs/m2")
    assert rows["M2"].values["error"] == pytest.approx(100 * metrics["test_error"])
    assert page.result.record["runs"][ours[2]]["lam"] == pytest.approx(64)
    assert any("CCVAE, which has no lambda" in text for text in page.result.conditions)


def test_mnist_with_another_number_of_labels_stands_beside_its_published_row(tmp_path, monkeypatch):
    small = {"hidden": 8, "latent": 4, "batch_size": 8, "validation": 8, "checkpoint_steps": 2}
    monkeypatch.setattr(vae_mnist, "_OPTIONS", small)
    monkeypatch.setattr("hybridkern.hybrid.vae.m2._LEAST_DEVIATION", 0.0)  # a first model that is hardly trained
    monkeypatch.setattr(vae_mnist, "_SETTINGS", vae_runs.settings({"1/D": 1.0}))
    data = npz(tmp_path / "a.npz", count=900, shape=(8, 8))
    page = done("vae-mnist", tmp_path / "out", minutes=0.06, data=data, variant="600")
    rows = page.result.tables[0].rows
    published = {row.label: row.values["error"] for row in rows if row.source == "Kingma et al. 2014"}
    assert published == {"M2": "4.94 ± 0.13", "M1+M2": "2.59 ± 0.05"}
    assert page.result.tables[0].title == "MNIST with 600 labels"
    assert json.loads((tmp_path / "out/results.json").read_text())["variant"] == "600"
    assert json.loads((tmp_path / "out/experiment.json").read_text())["variant"] == "600"
    assert page.result.shortfalls[0].startswith("The models had 0.012 minutes each, not the usual 6.")
    with pytest.raises(RecipeError, match="--variant: got '7', expected one of 1000, 100, 600, 3000"):
        done("vae-mnist", tmp_path / "b", data=data, variant="7")
    with pytest.raises(RecipeError, match="--variant: the experiment 'half-moons' has no such option"):
        done("half-moons", tmp_path / "b", variant="7")
    assert not (tmp_path / "b").exists()


def test_targets_that_are_missed_are_said():
    request = SimpleNamespace(budget=Budget(51.0), variant="1000")
    conv = vae_runs.BY_CONVOLUTIONS
    good = {"M2": 4.5, "M1+M2": 3.0, "M2" + conv: 4.5, "M1+M2" + conv: 3.0}
    assert vae_mnist.shortfalls(good, request) == []
    first, second = vae_mnist.shortfalls(good | {"M2": 4.6, "M1+M2" + conv: 3.1}, request)
    assert first.startswith("M2: error 4.60 %, above 4.5 %")
    assert second.startswith("M1+M2, q(y|x) by convolutions: error 3.10 %, above 3 %")
    request.variant = "100"
    assert vae_mnist.shortfalls(dict.fromkeys(good, 40.0), request) == []


@pytest.mark.parametrize(("own", "within"), [(0.0349, True), (0.0351, False)])
def test_lambda_free_is_held_against_the_best_lambda(own, within):
    def run(error):
        return SimpleNamespace(metrics={"test_error": error, "test_class_nll_nats": 0.0})

    runs = {"CCVAE": run(own), "hybrid VAE, lambda = 1": run(0.05), "hybrid VAE, lambda = 1/D": run(0.03)}
    text = vae_runs.against_lambda(runs)
    assert "(lambda = 1/D): 3.00 %" in text and ("is not better" not in text) == within


def test_every_model_has_a_curve():
    """One of convolutions is dashed, in the colour of its own model."""
    names = [setting.name for setting in vae_runs.settings({"1/D": 1.0, "28/D": 28.0, "1": 784.0}, convolutions=True)]
    curve = {"seconds": [0.0, 60.0], "val_error": [0.5, 0.1]}
    figure = vae_runs.picture({name: SimpleNamespace(metrics={"validation": curve}) for name in names}, 15.0)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines) == names and len(names) == 10
    solid = {line.get_color() for line in lines.values() if line.get_linestyle() == "-"}
    assert len(solid) == 8
    dashed = lines["M2" + vae_runs.BY_CONVOLUTIONS]
    assert dashed.get_linestyle() == "--" and dashed.get_color() == lines["M2"].get_color()
