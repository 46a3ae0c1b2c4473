"""What a run leaves behind, and what its figures mean."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.image import imread
from torch import nn

from hybridkern.lab.data import load_digits
from hybridkern.lab.recipes import digits_tutorial
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.evaluation import draw, evaluate
from hybridkern.lab.recipes.files import replacing, write_json
from hybridkern.lab.recipes.recipe import DataShape, get_recipe
from hybridkern.lab.recipes.task import Task, Terms
from hybridkern.lab.recipes.workflow import evaluate_run, load_run
from tests.recipes.conftest import run

FILES = {
    "checkpoints",
    "config.json",
    "metrics.json",
    "model.safetensors",
    "overview.png",
    "real.png",
    "samples.png",
    "validation_error.png",
    "validation_nll.png",
}


@pytest.mark.parametrize("name", ["digits", "digits-tutorial"])
def test_run_folder_is_complete_and_can_be_read_back(tmp_path, name):
    done = run(name, tmp_path / "a", epochs=1, lam=0.02, seed=3, lattice="exact")
    assert {path.name for path in (tmp_path / "a").iterdir()} == FILES
    assert {path.name for path in (tmp_path / "a" / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics == done.metrics
    assert (metrics["lam"], metrics["seed"], metrics["epochs"], metrics["threads"]) == (0.02, 3, 1, 1)
    assert metrics["test_bits_per_dim"] == pytest.approx(metrics["test_nll_nats"] / (64 * math.log(2)))
    assert metrics["lattice_share"] == 1 and metrics["round_trip_mismatches"] == 0 and metrics["valid_likelihood"]
    assert metrics["train_seconds"] > 0
    for path in done.pictures:
        assert imread(path).std() > 0.01
    record, task = load_run(tmp_path / "a")
    assert record.recipe.name == name and record.config.lam == 0.02
    assert torch.equal(draw(task, 5, seed=1), draw(done.task, 5, seed=1))
    _, again, drawn = evaluate_run(tmp_path / "a")
    assert drawn == []
    assert again == {key: metrics[key] for key in again}


@pytest.mark.parametrize(("name", "lam"), [("digits", 1.0), ("digits-tutorial", 1 / 64)])
def test_lam_is_the_recipes_unless_given(name, lam):
    recipe = get_recipe(name)
    data = DataShape((8, 8), 10, 17, 64)
    assert recipe.build(recipe.config, data).lam == lam
    assert recipe.build(recipe.config.updated(name, {"lam": 0.0}), data).lam == 0


def plain_validation_losses(epochs: int, seed: int) -> list[float]:
    """The tutorial's experiment as a plain PyTorch loop: two couplings, ``beta * round(t)``, logistic prior."""
    torch.manual_seed(seed)

    def mlp(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(inputs, 256), nn.LeakyReLU(), nn.Linear(256, 256), nn.LeakyReLU(), nn.Linear(256, outputs)
        )

    classifier, nets = mlp(64, 10), [mlp(32, 32) for _ in range(2)]
    beta, mean, log_scale = torch.zeros(2), torch.zeros(1, 64), torch.ones(1, 64)
    free = [beta.requires_grad_(), mean.requires_grad_(), log_scale.requires_grad_()]
    optimizer = torch.optim.Adamax([*free, *nn.ModuleList([classifier, *nets]).parameters()], lr=1e-3)

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        for index, net in enumerate(nets):
            a, b = x.chunk(2, 1)
            t = net(a)
            x = torch.cat([a, b + beta[index] * (t + (t.round() - t).detach())], 1).flip(1)
        upper, lower = ((x + side - mean) / log_scale.exp() for side in (0.5, -0.5))
        log_p = torch.log(torch.sigmoid(upper) - torch.sigmoid(lower)).sum(1)
        return F.cross_entropy(classifier(x), y) - log_p.mean() / 64

    data = load_digits()
    training = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data.train.x, data.train.y), 64, shuffle=True)
    validation = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data.validation.x, data.validation.y), 350)
    losses = []
    for _ in range(epochs):
        for x, y in training:
            optimizer.zero_grad()
            loss(x, y).backward()
            optimizer.step()
        with torch.no_grad():
            losses += [loss(x, y).item() for x, y in validation]
    return losses


@pytest.mark.parametrize("seed", [0, 1])
def test_tutorial_recipe_follows_a_plain_loop_seed_by_seed(tmp_path, seed):
    done = run("digits-tutorial", tmp_path / "a", epochs=3, seed=seed, lattice="tutorial")
    assert done.metrics["validation"]["val_loss"] == pytest.approx(plain_validation_losses(3, seed), rel=1e-4)
    assert not done.metrics["valid_likelihood"] and done.metrics["lattice_share"] < 0.9


def test_tutorial_recipe_has_the_four_part_variant(tmp_path):
    done = run("digits-tutorial", tmp_path / "a", epochs=1, parts=4)
    shapes = {name: tuple(value.shape) for name, value in done.task.state_dict().items()}
    assert shapes["model.t_a.0.0.weight"] == (256, 48) and shapes["model.t_d.1.4.weight"] == (16, 256)
    assert done.metrics["round_trip_mismatches"] == 0


class Off(Task):
    """A made-up task whose figures are known: a quarter of the latents on the lattice, one element inverted wrongly."""

    def loss(self, x, y):
        raise NotImplementedError

    def terms(self, x, y):
        return Terms(torch.full((len(x),), 2.0), torch.full((len(x),), 3.0), (y + (y == 0)))

    def latent(self, x):
        return torch.cat([x[:, :16], x[:, 16:] + 0.25], 1)

    def invert(self, z):
        x = torch.cat([z[:, :16], z[:, 16:] - 0.25], 1)
        x[0, 0] += 0.6
        return x

    def sample(self, n):
        return torch.rand(n, 64)


def test_evaluation_measures_what_it_says():
    split = load_digits().test
    figures = evaluate(Off(0.1), split, 17)
    assert figures["test_error"] == pytest.approx((split.y == 0).double().mean().item())
    assert (figures["test_class_nll_nats"], figures["test_nll_nats"]) == (2, 3)
    assert figures["test_bits_per_dim"] == pytest.approx(3 / (64 * math.log(2)))
    assert figures["lattice_share"] == 0.25
    assert figures["round_trip_mismatches"] == -(-447 // 64)  # one a batch of the inverse
    assert figures["round_trip_max_abs_error"] == pytest.approx(0.6)


def test_samples_depend_on_the_seed_and_leave_the_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, two, other = draw(Off(0.1), 3, 1), draw(Off(0.1), 3, 1), draw(Off(0.1), 3, 2)
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


def test_training_that_breaks_down_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(digits_tutorial.TutorialTask, "loss", lambda self, x, y: self.model(x, y) * float("nan"))
    with pytest.raises(RecipeError, match=r"training broke down in epoch 1: val_loss is nan"):
        run("digits-tutorial", tmp_path / "a", epochs=2)
    assert not (tmp_path / "a" / "metrics.json").exists()


def test_own_data_train_and_a_changed_file_is_noticed(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"images": rng.integers(0, 4, (200, 4, 5)).astype(np.uint8), "labels": np.arange(200) % 3}
    np.savez(tmp_path / "own.npz", **arrays)
    done = run("digits", tmp_path / "a", epochs=1, data=os.path.relpath(tmp_path / "own.npz"))
    assert done.record.data == DataShape((4, 5), 3, 4, 20)
    np.savez(tmp_path / "own.npz", **arrays, more=np.zeros(1))
    with pytest.raises(RecipeError, match=r"own\.npz: not the data this run was trained on"):
        evaluate_run(tmp_path / "a")
    with pytest.raises(RecipeError, match="not the data"):
        run("digits", tmp_path / "a", resume=True)


def test_damaged_weights_are_named(tmp_path):
    run("digits-tutorial", tmp_path / "a", epochs=1)
    path = tmp_path / "a" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RecipeError, match=r"model\.safetensors: missing or damaged"):
        load_run(tmp_path / "a")


def test_files_are_whole_or_absent(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="nan"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [path]


def test_interrupted_write_keeps_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert json.loads(path.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [path]


def test_importing_the_package_loads_no_training_library():
    names = ("lightning", "sklearn", "matplotlib", "typer")
    code = f"import sys, hybridkern; print([name for name in {names} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
