"""Recipes of variational autoencoders: figures and files of a run, M2 on a run of M1, bad settings."""

from __future__ import annotations

import json

import pytest
import torch
from matplotlib.image import imread

from hybridkern.hybrid import objectives
from hybridkern.hybrid.vae import M1M2
from hybridkern.lab.data import load_digits
from hybridkern.lab.recipes import digits_vae, mnist_vae
from hybridkern.lab.recipes.digits_vae import RECIPE, DigitsVAEConfig
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.evaluation import evaluating
from hybridkern.lab.recipes.images.module import ImageModule
from hybridkern.lab.recipes.recipe import DataShape, get_recipe
from hybridkern.lab.recipes.vae.config import MODELS
from hybridkern.lab.recipes.vae.model import classifier_of
from hybridkern.lab.recipes.vae.task import VAETask
from hybridkern.lab.recipes.workflow import evaluate_run, load_run
from tests.recipes.conftest import run, without_pictures
from tests.recipes.images import npz

SHAPE = DataShape((8, 8), 10, 17, 64)
SMALL = {"hidden": 32, "latent": 6}
PLOTS = {"confidence.png", "real.png", "reconstructions.png", "samples.png", "training.png"}


undrawn = without_pictures(digits_vae, mnist_vae)


def task_of(**options: object) -> VAETask:
    torch.manual_seed(0)
    return RECIPE.build(DigitsVAEConfig(**SMALL | options), SHAPE)


def test_m2_learns_the_digits_from_a_hundred_labels(tmp_path):
    done = run("digits-vae", tmp_path / "a", epochs=25, hidden=64)
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics == done.metrics
    assert {path.name for path in (tmp_path / "a").glob("*.png")} == PLOTS
    assert all(imread(path).std() > 0.01 for path in done.pictures)
    assert metrics["test_error"] < 0.25 and metrics["test_nll_nats"] < 150
    assert "an upper bound" in metrics["nll_convention"] and "grey values 0..16" in metrics["nll_convention"]
    assert "lam" not in metrics and "minus 10 log q(y|x) in the mean" in metrics["lam_convention"]
    _, again, _ = evaluate_run(tmp_path / "a")
    assert again == {key: metrics[key] for key in again}


@pytest.mark.parametrize("model", [name for name in MODELS if name != "m1m2"])  # which needs a run of m1
def test_every_model_gives_samples_and_those_of_a_class(model):
    task = task_of(model=model).eval()
    assert len(task.sample(3)) == 3 and len(task.sample(2, label=4)) == 2


def test_m2_stands_on_a_run_of_m1(undrawn, tmp_path):
    options = SMALL | {"epochs": 6}
    run("digits-vae", tmp_path / "m1", model="m1", **options)
    done = run("digits-vae", tmp_path / "m1m2", model="m1m2", first=str(tmp_path / "m1"), **options)
    assert isinstance(done.task.model, M1M2) and "test_nll_nats" not in done.metrics
    _, first = load_run(tmp_path / "m1")
    for name, value in first.model.flow.state_dict().items():
        assert torch.equal(value, done.task.model.first.state_dict()[name]), name
    _, loaded = load_run(tmp_path / "m1m2")  # which makes a model of as many latents without the run of M1
    for name, value in done.task.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert run("digits-vae", tmp_path / "m1m2", resume=True).metrics["test_error"] == done.metrics["test_error"]
    conv = options | {"model": "m1m2", "first": str(tmp_path / "m1"), "classifier": "conv", "epochs": 2}
    done = run("digits-vae", tmp_path / "conv", **conv)
    assert isinstance(done.task.model.classifier[1], torch.nn.Conv2d)
    _, loaded = load_run(tmp_path / "conv")
    for name, value in done.task.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_m1_is_checked_to_be_the_one_that_is_meant(undrawn, tmp_path):
    run("digits-vae", tmp_path / "m2", model="m2", **SMALL | {"epochs": 1})
    run("digits-vae", tmp_path / "m1", model="m1", **SMALL | {"epochs": 1, "hidden": 16})
    for folder, message in (("m2", "holds no run of a VAE of model m1"), ("m1", "does not fit"), ("none", "no run")):
        with pytest.raises(RecipeError, match=message):
            run("digits-vae", tmp_path / "a", model="m1m2", first=str(tmp_path / folder), **SMALL)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("model", [name for name in MODELS if name != "m1m2"])
def test_every_model_takes_rows_with_and_without_label(model):
    task, data = task_of(model=model), load_digits()
    x = data.train.x[:24]
    for y in (data.train.y[:24], torch.full((24,), -1), torch.where(torch.arange(24) < 8, data.train.y[:24], -1)):
        loss, terms = task.loss_and_terms(x, y)
        loss.backward()
        assert torch.isfinite(loss) and (terms.class_nll[y < 0] == 0).all()
    with pytest.raises(ValueError, match=r"y: got label 10, expected 0 to 9"):
        task.loss(x, torch.full((24,), 10))
    with evaluating(task):
        assert task.invert(task.latent(x)).shape == task.sample(5).expand(-1, 64)[:1].expand(24, -1).shape
        out = task.output(x)
    assert out.log_px.shape == (24,) and out.prediction.shape == (24, 10)


@pytest.mark.parametrize("model", [name for name in MODELS if name != "m1m2"])
def test_weight_decay_is_of_the_weights_of_all_networks(model):
    task = task_of(model=model, weight_decay=0.25, head_weight_decay=0.5)
    groups = ImageModule(task, task.config, 1)._parameter_groups()
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    head = {id(parameter) for parameter in task.head_parameters()}
    layers = [module for module in task.modules() if isinstance(module, torch.nn.Linear)]
    assert {decay[id(layer.weight)] for layer in layers if id(layer.weight) not in head} == {0.25}
    assert {decay[id(layer.bias)] for layer in layers} == {0.0}
    assert sum(value == 0.25 for value in decay.values()) == sum(id(layer.weight) not in head for layer in layers)


def test_the_weight_of_labels_is_that_of_a_mean_over_the_batch():
    """A quarter of the batch has labels, so that each weighs four times as much."""
    assert task_of(label_weight=0.1, unlabelled=0.75).model.weight == pytest.approx(0.4)
    assert task_of(label_weight=0.1, labels=None).model.weight == pytest.approx(0.1)
    # a batch of 64 holds all ten labels there are, not 16
    assert task_of(label_weight=0.1, unlabelled=0.75, labels=10).model.weight == pytest.approx(0.1 * 64 / 10)
    bayes = task_of(model="bayes", label_weight=5.0, labels=10).objective()
    assert bayes.base.lam == pytest.approx(10 / 64 / 5)


def test_the_hybrids_weight_is_per_dimension_and_m1_keeps_the_classifier_to_itself():
    gradients: list[list[torch.Tensor]] = []
    hybrid = task_of(model="hybrid", lam=2.0)
    assert hybrid.lam == 2 / 64 and hybrid.objective().base == objectives.Weighted(2 / 64)
    first, data = task_of(model="m1"), load_digits().train
    for y in (data.y[:8], (data.y[:8] + 1) % 10):
        first.zero_grad()
        torch.manual_seed(1)
        first.loss(data.x[:8], y).backward()
        gradients.append([parameter.grad.clone() for parameter in first.model.flow.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_pixels_are_black_and_white_or_as_they_are():
    x = torch.arange(17.0)[:, None].expand(-1, 64)
    noisy = x + 0.99 * torch.rand(17, 64)
    grey, binary = task_of(), task_of(likelihood="bernoulli")
    assert torch.equal(grey.rows(grey.images(noisy)), x)
    assert torch.equal(binary.images(noisy), (x >= 8).float())
    assert torch.equal(binary.rows(binary.images(noisy)), 16 * (x >= 8).float())


@pytest.mark.parametrize("likelihood", ["bernoulli", "logistic", "mixture"])
def test_the_decoder_starts_from_what_is_known_of_each_pixel(likelihood):
    data = load_digits().train
    task = task_of(model="hybrid", likelihood=likelihood)
    with evaluating(task):
        before = task.output(data.x).log_px.mean()
        task.initialize(data.x, data.y)
        assert task.output(data.x).log_px.mean() > before + 15
        expected = task.invert(torch.zeros(1, 6))[0] / 16
    mean = task.images(data.x).mean(0)
    assert (expected - mean).abs().mean() < 0.12


def test_a_file_of_images_by_the_recipe_of_mnist(undrawn, tmp_path):
    data = npz(tmp_path / "a.npz", shape=(6, 6))
    options = {
        "data": data,
        "labels": 9,
        "batch_size": 8,
        "validation": 16,
        "checkpoint_steps": 4,
        "epochs": 2,
        **SMALL,
    }
    metrics = run("mnist-vae", tmp_path / "a", **options).metrics
    assert (
        metrics["examples"] == {"train": 56, "validation": 16, "test": 24}
        and "black or white" in metrics["nll_convention"]
    )
    with pytest.raises(RecipeError, match="--labels: got 900, expected at least one and at most all"):
        run("mnist-vae", tmp_path / "b", **options | {"labels": 900})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam": 1.0}, "--lam: got 1.0, expected none: only the model 'hybrid' has such a weight"),
        ({"model": "m1m2"}, "--set first: got None, expected the folder of a run of model m1"),
        ({"first": "a"}, "expected none: it is for the model m1m2"),
        ({"model": "vae"}, "--model: got 'vae', expected one of m2, m1, m1m2, ccvae, bayes, hybrid"),
        ({"likelihood": "gaussian"}, "--likelihood: got 'gaussian', expected one of"),
        ({"label_weight": -1.0}, "--label-weight: got -1.0, expected a finite number that is not negative"),
        ({"consistency": 1.0}, "--consistency: got 1.0, expected 0: these models have no such term"),
        ({"ood": "a.npz"}, "--ood: the recipe 'digits-vae' has no such option"),
        ({"validation": 3}, "--validation: got 3, expected 350"),
        ({"labels": 5}, "--labels: got 5, expected at least one"),
        ({"batch_size": 2000}, "--batch-size: got 2000, expected at most the 1000 training images"),
    ],
)
def test_settings_out_of_range_are_named(tmp_path, options, message):
    with pytest.raises(RecipeError) as error:
        run("digits-vae", tmp_path / "a", **options)
    assert message in str(error.value) and not (tmp_path / "a").exists()


def test_the_recipes_are_in_the_list():
    for name in ("digits-vae", "mnist-vae"):
        assert get_recipe(name).name == name


def test_m2_may_classify_by_convolutions():
    task, data = task_of(model="m2", classifier="conv"), load_digits()
    assert any(isinstance(module, torch.nn.Conv2d) for module in task.model.classifier.modules())
    task.loss(data.train.x[:24], torch.where(torch.arange(24) < 8, data.train.y[:24], -1)).backward()
    with pytest.raises(RecipeError, match="classifier: got conv, expected mlp"):
        task_of(model="ccvae", classifier="conv")
    with pytest.raises(RecipeError, match=r"classifier: got conv for images \(4, 4, 3\), expected grey ones"):
        classifier_of(task.config, DataShape((4, 4, 3), 10, 256, 48))
