"""Experiments on residual flows, cut short: the tables, and what is said of orders that do not hold."""

from __future__ import annotations

import pytest
import torch
from matplotlib.image import imread

from hybridkern.lab.recipes import mnist
from hybridkern.lab.recipes.density import toy
from hybridkern.lab.recipes.density.config import DensityConfig
from hybridkern.lab.recipes.density.model import build_flow
from hybridkern.lab.recipes.evaluation import evaluating
from hybridkern.lab.recipes.images.batches import dequantized, seeded
from hybridkern.lab.recipes.images.config import ImagesConfig
from hybridkern.lab.recipes.images.model import build
from hybridkern.lab.recipes.recipe import DataShape
from hybridkern.lab.reproduce import residual_mnist, residual_toy
from tests.recipes.conftest import without_pictures
from tests.recipes.images import npz
from tests.reproduce.conftest import done

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")


undrawn = without_pictures(toy, mnist)


def test_flows_of_the_plane_have_as_many_parameters():
    counts = [
        sum(parameter.numel() for parameter in build_flow(DensityConfig(**options), 2).parameters())
        for options in residual_toy.MODELS.values()
    ]
    assert max(counts) < 1.05 * min(counts)


def test_densities_of_the_plane_stand_in_one_table(tmp_path, monkeypatch):
    small = {name: options | {"hidden": 4, "layers": 2} for name, options in residual_toy.MODELS.items()}
    monkeypatch.setattr(residual_toy, "MODELS", {name: small[name] | {"size": 200} for name in small})
    monkeypatch.setattr(residual_toy, "DRAWN", {"rings": residual_toy.DRAWN["rings"]})
    page = done("residual-toy", tmp_path / "out", minutes=0.05)
    assert imread(tmp_path / "out/densities.png").std() > 0.01
    rows = {row.label: row.values for row in page.result.tables[0].rows}
    assert list(rows) == ["RealNVP", "NSF", "residual", "i-DenseNet"]
    for name, values in rows.items():
        assert values["rings"] == page.result.record["runs"][f"{name}, rings"]["test_nll_nats"]
    assert any("The time limit ended training" in text for text in page.result.shortfalls)


def test_orders_that_do_not_hold_are_said(monkeypatch):
    monkeypatch.setattr(residual_toy, "DRAWN", {"rings": None})
    rows = {"i-DenseNet": {"rings": 1.0}, "residual": {"rings": 1.0}, "RealNVP": {"rings": 1.1}}
    assert residual_toy.shortfalls(rows) == []
    rows["i-DenseNet"]["rings"] = 1.2
    assert residual_toy.shortfalls(rows) == [
        "rings: i-DenseNet (1.200) is above the residual flow (1.000).",
        "rings: the i-DenseNet (1.200) is not below RealNVP (1.100).",
    ]


def test_residual_flows_of_images_stand_beside_glow(tmp_path, monkeypatch):
    small = {"steps": 1, "hidden": 4, "batch_size": 8, "checkpoint_steps": 2, "validation": 8, "precision": "fp32"}
    models = {name: options | small for name, options in residual_mnist.MODELS.items()}
    monkeypatch.setattr(residual_mnist, "MODELS", models)
    monkeypatch.setattr(residual_mnist, "_COMMON", residual_mnist._COMMON | {"validation": 8, "batch_size": 8})
    page = done("residual-mnist", tmp_path / "out", minutes=0.06, data=npz(tmp_path / "a.npz", shape=(8, 8)))
    rows = page.result.tables[0].rows
    assert [row.label for row in rows] == ["residual", "residual", "i-DenseNet", "Glow"]
    assert rows[1].values == {"error": 0.54, "bits": 1.01} and rows[1].source == "Chen et al. 2019"
    assert imread(tmp_path / "out/training.png").std() > 0.01
    runs = page.result.record["runs"]
    assert all(run["lam"] == 1 for run in runs.values())
    assert rows[0].values["bits"] == runs["residual"]["test_bits_per_dim"]
    assert page.result.shortfalls[0].startswith("The models had 0.02 minutes each")


def test_what_residual_flows_of_images_miss_is_said():
    figures = residual_mnist.Figures
    good, bad, glow = figures(1.4, 0.1, 1.0, 1), figures(1.6, 0.1, 1.3, 1), figures(1.0, 0.1, 1.2, 1)
    found = {"residual": good, "i-DenseNet": good, "Glow": glow}
    assert residual_mnist.shortfalls(found, "1/D", 10.0) == []
    error, bits = residual_mnist.shortfalls(found | {"residual": bad}, "1/D", 10.0)
    assert error.startswith("residual: error 1.60 %, above 1.5 %") and "1.300 bits" in bits
    assert len(residual_mnist.shortfalls(found | {"residual": bad}, "0", 10.0)) == 0


def test_density_of_images_does_not_depend_on_what_the_flow_sees_in_their_place():
    """On logits: the density of the scaled image, by the flow's own and the slope of the logit in float64."""
    options = {"levels": 1, "steps": 1, "hidden": 4, "flow": "residual", "logit": 0.05, "head_hidden": 4}
    torch.manual_seed(0)
    task = build(ImagesConfig(**options), DataShape((4, 4), 3, 256, 16))
    x = dequantized(torch.randint(0, 256, (6, 16)), seeded(0))
    task.initialize(torch.randint(0, 256, (40, 16)), torch.zeros(40, dtype=torch.long))
    with evaluating(task):
        torch.manual_seed(1)
        found = task.output(x).log_px
        torch.manual_seed(1)
        own = task.model.flow.log_prob(task.images(x))
        torch.testing.assert_close(task.rows(task.images(x)), x, rtol=1e-4, atol=1e-3)
    p = 0.05 + 0.9 * x.double() / 256
    slope = (0.9 / (p * (1 - p))).log().sum(1)
    torch.testing.assert_close(found.double(), own.double() + slope, rtol=1e-5, atol=1e-4)
    z = task.images(x).permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(z.double(), p.logit(), rtol=1e-5, atol=1e-5)
