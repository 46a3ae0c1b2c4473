"""Runs on images of version 0.1: their form was Glow's own, and stays so, though the default is another one now."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.images.config import ImagesConfig
from hybridkern.lab.recipes.images.model import build
from hybridkern.lab.recipes.mnist_vae import MnistVAEConfig
from hybridkern.lab.recipes.recipe import DataShape
from hybridkern.ops.affine_coupling.form import NAMED_FORMS

SHAPE = DataShape((4, 4), classes=2, grey_levels=256, dim=16)
SMALL = {"levels": 1, "steps": 2, "hidden": 4}


def test_a_run_keeps_the_form_in_its_config() -> None:
    written = dataclasses.asdict(ImagesConfig(form="glow", **SMALL))
    task = build(ImagesConfig.from_json(written), SHAPE)
    assert task.model.flow.form == NAMED_FORMS["glow"]
    x = torch.randint(0, 256, (8, 16)).float()
    task.initialize(x, torch.zeros(8, dtype=torch.long))
    # as model.safetensors held it: no form, a truth value where a number is now
    state = {name: value for name, value in task.state_dict().items() if not name.endswith("_extra_state")}
    state |= {name: value.bool() for name, value in state.items() if name.endswith("_initialized")}
    loaded = build(ImagesConfig.from_json(written), SHAPE)
    loaded.load_state_dict(state)
    images = task.images(x)
    assert torch.equal(loaded.eval().model.log_prob(images), task.eval().model.log_prob(images))
    with pytest.raises(ValueError, match="form: got a state_dict that does not say it"):
        build(ImagesConfig(**SMALL), SHAPE).load_state_dict(state)


@pytest.mark.parametrize(
    "ignored",
    [{"components": 10}, {"slices": 2, "quantized": 0.1}, {"coupling": "parts", "prior": "logistic"}],
)
def test_settings_that_had_no_effect_are_read_as_their_defaults(ignored) -> None:
    written = dataclasses.asdict(ImagesConfig(**SMALL))
    assert ImagesConfig.from_json(written | ignored) == ImagesConfig(**SMALL, device="auto")
    integers = ImagesConfig(flow="idf", components=10)
    assert ImagesConfig.from_json(dataclasses.asdict(integers)) == integers


def test_a_test_part_beside_official_files_was_ignored_and_is_none() -> None:
    for kind in (ImagesConfig, MnistVAEConfig):
        written = dataclasses.asdict(kind(data_root="svhn"))
        assert kind.from_json(written | {"test_data": "b.npz"}) == kind(data_root="svhn")


@pytest.mark.parametrize("former", [{"clip": -1.0}, {"warmup": 2.0}, {"ema": 1.0}, {"lr": -1.0}])
def test_numbers_that_older_versions_took_can_be_read(former) -> None:
    config = ImagesConfig.from_json(dataclasses.asdict(ImagesConfig(**SMALL)) | former)
    assert dataclasses.asdict(config.updated("svhn", {"ood": "b.npz"})).items() >= former.items()
    with pytest.raises(RecipeError, match="--seed: got -1"):
        config.updated("svhn", {"seed": -1})


def test_new_runs_are_bounded() -> None:
    assert build(ImagesConfig(**SMALL), SHAPE).model.flow.form == NAMED_FORMS["bounded"]
