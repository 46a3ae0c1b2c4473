"""Recipes on images of which few have labels, and images whose grey values are drawn anew."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from hybridkern.lab.data import Split
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.evaluation import evaluating
from hybridkern.lab.recipes.images.batches import TrainingBatches, dequantized, seeded
from hybridkern.lab.recipes.images.official import MNIST
from hybridkern.lab.recipes.images.semi import SemiSupervisedTask
from hybridkern.lab.recipes.images.sources import load, load_ood
from hybridkern.lab.recipes.recipe import get_recipe
from hybridkern.lab.recipes.settings import settings_of
from tests.recipes.conftest import run
from tests.recipes.images import SMALL, npz


def config(folder, **options):
    recipe = get_recipe("mnist")
    return recipe.config.updated("mnist", SMALL | {"data": npz(folder / "a.npz", shape=(8, 8))} | options)


def test_labels_are_kept_evenly_and_the_other_images_stay_or_go(tmp_path):
    everything = load(config(tmp_path), MNIST).train
    few = load(config(tmp_path, labels=7), MNIST).train
    chosen = few.y >= 0
    assert torch.bincount(few.y[chosen]).tolist() == [3, 2, 2] and (few.y[~chosen] == -1).all()
    assert torch.equal(few.x, everything.x) and torch.equal(few.y[chosen], everything.y[chosen])
    alone = load(config(tmp_path, labels=7, unlabelled=0.0), MNIST).train
    assert torch.equal(alone.x, everything.x[chosen]) and torch.equal(alone.y, everything.y[chosen])


def test_pairs_stay_in_one_process(tmp_path):
    with pytest.raises(RecipeError, match="--devices: got 2, expected 1 with consistency"):
        config(tmp_path, labels=6, consistency=1.0, devices=2)


@pytest.mark.parametrize("name", ["mnist", "mnist-vae", "digits-vae"])
def test_patience_where_validation_ends_nothing_is_an_error(name):
    config = get_recipe(name).config
    with pytest.raises(RecipeError, match="--patience: got 3, expected 20: validation does not end these trainings"):
        config.updated(name, {"patience": 3})
    assert config.updated(name, {"patience": 20}) == config
    meanings = {setting.name: setting.meaning for setting in settings_of(get_recipe(name))}
    assert meanings["patience"].startswith("without effect") and "by every schedule" in meanings["warmup"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mnist", {"consistency": 1.0}, "--consistency: got 1.0, expected 0 without unlabelled images"),
        ("mnist", {"labels": 6, "unlabelled": 0.0, "consistency": 1.0}, "--consistency: got 1.0, expected 0 without"),
        ("mnist", {"labels": 6, "distortion": 0.5}, "--distortion: got 0.5, expected 0 without consistency"),
        ("digits-vae", {"distortion": 0.5}, "--distortion: got 0.5, expected 0 without consistency"),
    ],
)
def test_views_that_nobody_sees_are_an_error(name, options, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        get_recipe(name).config.updated(name, options)


def test_what_labels_change_is_said_or_left_out():
    recipe = get_recipe("mnist")
    with pytest.raises(RecipeError, match=r"--label-smoothing: got 0\.1, expected 0 with --set labels and unlabelled"):
        recipe.config.updated("mnist", {"labels": 6, "label_smoothing": 0.1})
    alone = recipe.config.updated("mnist", {"labels": 6, "unlabelled": 0.0, "label_smoothing": 0.1})
    assert alone.label_smoothing == 0.1
    assert recipe.published(alone).figures == {}  # those of the paper are of models of all labels
    assert recipe.published(recipe.config).figures["ood"] == "notMNIST"  # whichever set the run was scored on


@pytest.mark.parametrize(("labels", "message"), [(2, "class 2 has 18"), (57, "class 2 has 18")])
def test_too_few_and_too_many_labels(tmp_path, labels, message):
    settings = config(tmp_path, labels=labels, batch_size=2)
    with pytest.raises(RecipeError, match=f"--labels: got {labels}, expected at least one.*{message}"):
        load(settings, MNIST)


def batches(unlabelled: float, labels: int = 5, **options) -> TrainingBatches:
    y = torch.full((40,), -1)
    y[:labels] = torch.arange(labels)
    x = torch.arange(40, dtype=torch.uint8)[:, None] + 50 * torch.arange(4, dtype=torch.uint8)
    return TrainingBatches(
        Split(x, y), (2, 2), 8, stretch=lambda: 1, seed=3, done=lambda: 0, unlabelled=unlabelled, **options
    )  # fmt: skip


def test_a_batch_holds_its_share_of_unlabelled_images(tmp_path):
    stream = batches(0.75)
    assert stream.steps_per_pass == 2
    seen = [stream.batch(step) for step in range(12)]
    for x, y in seen:
        assert (y >= 0).tolist() == [True] * 2 + [False] * 6
        assert torch.equal(x[:2, 0].floor().long(), y[:2])
    for first in range(0, 12, 2):  # passes over the labels
        assert len({int(label) for _, y in seen[first : first + 2] for label in y[y >= 0]}) == 4
    rest = torch.cat([x[y < 0, 0].floor() for x, y in seen[:5]])
    assert len(rest.unique()) == 30  # of 35, none twice in a pass
    assert not torch.equal(seen[0][0], seen[5][0])


def test_two_views_of_unlabelled_images_follow_each_other():
    x, y = batches(0.75, views=2).batch(4)
    assert (y >= 0).tolist() == [True] * 2 + [False] * 6
    assert torch.equal(x[2:5].floor(), x[5:8].floor()) and len(x[2:5, 0].floor().unique()) == 3
    assert not torch.equal(x[2:5], x[5:8])  # dequantized anew


def test_second_views_alone_are_distorted():
    plain, y = batches(0.75, views=2).batch(4)
    x, same = batches(0.75, views=2, distortion=1.0).batch(4)
    assert torch.equal(y, same) and torch.equal(x[:5], plain[:5])
    assert (x[5:8] != plain[5:8]).any(1).all()


def test_no_more_labelled_images_in_a_batch_than_there_are():
    _, y = batches(0.1, labels=3).batch(0)
    assert (y >= 0).sum() == 3 and len(y) == 8


def test_the_loss_is_that_of_the_paper(tmp_path):
    settings = config(tmp_path, labels=6, entropy_weight=0.7, lam=2.0)
    recipe = get_recipe("mnist")
    done = run("mnist", tmp_path / "out", **SMALL, data=settings.data, labels=6, entropy_weight=0.7, lam=2.0, epochs=2)
    task, found = done.task, recipe.load(settings).train
    assert isinstance(task, SemiSupervisedTask)
    x = dequantized(found.x, seeded(1))
    with evaluating(task):
        out = task.output(x)
        loss, terms = task.loss_and_terms(x, found.y)
        task.boost = 3.0
        boosted, same = task.loss_and_terms(x, found.y)
    assert torch.equal(terms.nll, same.nll)
    assert (boosted - loss).item() == pytest.approx(-4 / 64 * out.log_px.mean().item(), rel=1e-4)
    p = torch.softmax(out.prediction.double(), 1).numpy()
    entropy, y = -(p * np.log(p)).sum(1), found.y.numpy()
    class_nll = np.where(y >= 0, -np.log(p[np.arange(len(p)), y]), 0.0)
    expected = class_nll + np.where(y < 0, 0.7 * entropy, 0.0) - 2 / 64 * out.log_px.double().numpy()
    assert loss.item() == pytest.approx(expected.mean(), rel=1e-5)
    np.testing.assert_allclose(terms.class_nll, class_nll, rtol=1e-5, atol=1e-6)
    curves = done.metrics["training"]
    assert len(curves["error"]) and all(0 <= error <= 1 for error in curves["error"])


def test_second_views_follow_the_sure_answers_to_the_first(tmp_path):
    options = SMALL | {"data": npz(tmp_path / "a.npz", shape=(8, 8)), "labels": 12, "epochs": 30, "lr": 5e-3}
    done = run("mnist", tmp_path / "out", **options, translation=0, consistency=0.6)
    task = done.task.train()
    assert isinstance(task, SemiSupervisedTask)
    found = get_recipe("mnist").load(done.record.config).train
    labelled, others = torch.nonzero(found.y >= 0)[:2, 0], torch.nonzero(found.y < 0)[:12, 0]
    rows = torch.cat([labelled, others, others])
    x = dequantized(found.x[rows], seeded(1))
    x[14:] = (x[14:] + 25).clamp(max=255)  # brighter, as another class is
    with torch.no_grad():
        p = torch.softmax(task.output(x).prediction.double(), 1).numpy()
        loss, _ = task.loss_and_terms(x, found.y[rows])
        task.consistency = 0.0
        without, _ = task.loss_and_terms(x, found.y[rows])
    first, second = p[2:14], p[14:]
    sure = first.max(1) >= 0.95
    assert 0 < sure.sum() < 12
    expected = -np.log(second[np.arange(12), first.argmax(1)])[sure].sum() / 26
    assert (loss - without).item() == pytest.approx(0.6 * expected, rel=1e-4)


def test_training_error_is_that_of_labelled_images(tmp_path):
    settings = SMALL | {"data": npz(tmp_path / "a.npz", shape=(8, 8))}
    options = settings | {"labels": 12, "unlabelled": 0.5, "epochs": 40, "translation": 0, "lr": 5e-3, "boost": 1.0}
    done = run("mnist", tmp_path / "out", **options)
    # three classes of plainly different brightness: all unlabelled images counted as wrong would leave one half
    assert done.metrics["training"]["error"][-1] < 0.2


def test_redrawn_grey_values_take_their_share_and_leave_the_rest():
    x = torch.full((64, 100), 7, dtype=torch.uint8)
    split = Split(x, torch.zeros(64, dtype=torch.int64))
    options = {"stretch": lambda: 1, "seed": 3, "done": lambda: 0}
    plain = TrainingBatches(split, (10, 10), 64, **options).batch(2)[0]
    drawn = TrainingBatches(split, (10, 10), 64, redrawn=(0.3, 256), **options).batch(2)[0]
    changed = drawn.floor() != 7
    assert changed.double().mean().item() == pytest.approx(0.3 * 255 / 256, abs=0.03)
    assert torch.equal(drawn[~changed], plain[~changed])
    values = drawn[changed].floor()
    assert values.min() < 5 and values.max() > 250 and values.mean().item() == pytest.approx(127.5, abs=8)


def test_some_of_another_set_spread_evenly_with_their_labels(tmp_path):
    images = np.arange(10, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    np.savez(tmp_path / "o.npz", images=images, labels=np.arange(10) % 4)
    some = load_ood(str(tmp_path / "o.npz"), None, (4, 4), 4)
    assert some.x[:, 0].tolist() == [0, 3, 6, 9] and some.y.tolist() == [0, 3, 2, 1]
    assert len(load_ood(str(tmp_path / "o.npz"), None, (4, 4)).x) == 10
    np.savez(tmp_path / "o.npz", images=images)
    assert load_ood(str(tmp_path / "o.npz"), None, (4, 4), 20).y is None
