"""Images for training: what a configuration reads, how images are moved, and that draws depend on seed and step."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hybridkern.lab.data import DataError, Split
from hybridkern.lab.recipes.augment import translated
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.images import batches
from hybridkern.lab.recipes.images.batches import FixedBatches, TrainingBatches, dequantized, seeded
from hybridkern.lab.recipes.images.config import ImagesConfig
from hybridkern.lab.recipes.images.module import ImageModule
from hybridkern.lab.recipes.images.official import SVHN
from hybridkern.lab.recipes.images.sources import load, load_ood
from tests.recipes.images import arrays, npz


def config(path: object, **options: object) -> ImagesConfig:
    return ImagesConfig(data=str(path), **{"batch_size": 8, "validation": 16} | options)


def test_split_is_followed_and_validation_is_the_end_of_training(tmp_path):
    data = load(config(npz(tmp_path / "a.npz")), SVHN)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [56, 16, 24]
    stored = torch.from_numpy(arrays()["images"]).flatten(1)
    assert data.train.x.dtype is torch.uint8
    assert torch.equal(torch.cat([data.train.x, data.validation.x, data.test.x]), stored)
    assert (data.shape, data.classes, data.grey_levels, data.dim) == ((8, 8, 3), 3, 256, 192)


def test_without_a_split_a_quarter_is_for_the_test(tmp_path):
    np.savez(tmp_path / "a.npz", **arrays(200))
    first, again = (load(config(tmp_path / "a.npz", seed=seed), SVHN) for seed in (0, 1))
    assert len(first.test) == round(200 * 447 / 1797) and torch.equal(first.test.x, again.test.x)


def test_test_images_of_their_own_and_fewer_for_training(tmp_path):
    np.savez(tmp_path / "a.npz", **arrays(60))
    np.savez(tmp_path / "b.npz", **arrays(30))
    data = load(config(tmp_path / "a.npz", test_data=str(tmp_path / "b.npz"), train_size=40), SVHN)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [24, 16, 30]
    np.savez(tmp_path / "b.npz", **arrays(30, (8, 9, 3)))
    with pytest.raises(DataError, match=r"b\.npz: images: got shape \(8, 9, 3\), expected \(8, 8, 3\)"):
        load(config(tmp_path / "a.npz", test_data=str(tmp_path / "b.npz")), SVHN)


def test_a_file_is_not_tested_on_what_it_trains_on(tmp_path):
    path = npz(tmp_path / "a.npz")
    with pytest.raises(RecipeError, match=r"--test-data: got .*a\.npz, the file of --data, all of which is trained on"):
        load(config(path, test_data=str(tmp_path / "." / "a.npz")), SVHN)


def test_official_files_have_a_test_part_and_take_no_other(tmp_path):
    other = npz(tmp_path / "b.npz")
    with pytest.raises(RecipeError, match=r"--test-data: got .*b\.npz, expected none: --data-root has a test part"):
        load(ImagesConfig(data_root=str(tmp_path), test_data=str(other)), SVHN)


def test_unused_images_are_not_scored(tmp_path):
    held = arrays(60)
    split = np.where(np.arange(60) % 3 == 0, -1, 0)
    np.savez(tmp_path / "a.npz", **(held | {"split": split.astype(np.int8)}))
    scored = load_ood(str(tmp_path / "a.npz"), None, (8, 8, 3))
    assert torch.equal(scored.x, torch.from_numpy(held["images"][split == 0]).flatten(1))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"data": None}, RecipeError, "needs either --data FILE.npz or --data-root DIR with the files of svhn"),
        ({"data_root": "."}, RecipeError, "--data-root DIR with the files of svhn, not both"),
        ({"data": "none.npz"}, DataError, r"none\.npz: no such file"),
        ({"train_size": 500}, RecipeError, "--train-size: got 500, but the training part has 72 images"),
        ({"batch_size": 64}, RecipeError, "--batch-size: got 64, but only 56 of 72 training images"),
        ({"ood": "none.npz"}, DataError, r"none\.npz: no such file"),
        ({"ood": "cifar10"}, RecipeError, "--ood: got cifar10, which needs --data-root"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, monkeypatch, options, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        load(_made(tmp_path, options), SVHN)


def _made(tmp_path: Path, options: dict) -> ImagesConfig:
    return ImagesConfig(**{"data": npz(tmp_path / "a.npz"), "batch_size": 8, "validation": 16} | options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp16"}, "--precision: got 'fp16', expected one of auto, fp32, bf16"),
        ({"memory": "none"}, "--memory: got 'none', expected one of store, recompute, invert"),
        ({"devices": 3}, "--batch-size: got 32, expected a multiple of --devices 3"),
        ({"minutes": 0.0}, "--minutes: got 0.0, expected a positive number"),
        ({"translation": -1}, "--translation: got -1, expected a whole number from 0 on"),
        ({"head_dropout": 1.0}, "--head-dropout: got 1.0, expected a share from 0 to below 1"),
        ({"clip": -1.0}, "--clip: got -1.0, expected a number that is not negative"),
        ({"ema": 1.0}, "--ema: got 1.0, expected a number from 0 to below 1"),
        ({"lr": math.nan}, "--lr: got nan, expected a finite number that is not negative"),
        ({"head_lr": -1.0}, "--head-lr: got -1.0, expected a finite number that is not negative"),
        ({"warmup": 2.0}, "--warmup: got 2.0, expected a share from 0 to 1"),
        ({"slices": 4}, "--slices: got 4, expected 1 without --flow idf"),
        ({"quantized": 0.2}, "--quantized: got 0.2, expected 0.0 without --flow idf"),
    ],
)
def test_settings_out_of_range_are_named(options, message):
    with pytest.raises(RecipeError, match=message):
        ImagesConfig().updated("svhn", options)


def test_settings_are_parsed_by_name():
    start = ImagesConfig()
    assert start.parsed("svhn", ["hidden=512", "lr=1e-3", "ema=0.9", "head=top"]) == {
        "hidden": 512, "lr": 1e-3, "ema": 0.9, "head": "top",
    }  # fmt: skip
    for text, value in {"False": False, "no": False, "0": False, "true": True, "1": True}.items():
        assert start.parsed("svhn", [f"whiten={text}"]) == {"whiten": value}
    with pytest.raises(RecipeError, match="--set: whiten: got 'maybe', expected true or false"):
        start.parsed("svhn", ["whiten=maybe"])
    with pytest.raises(RecipeError, match="--set: hidden: got 'many', expected int"):
        start.parsed("svhn", ["hidden=many"])
    with pytest.raises(RecipeError, match="--set: got 'width=3', expected NAME=VALUE with one of svhn's names: data,"):
        start.parsed("svhn", ["width=3"])


@pytest.mark.parametrize(("clip", "norm"), [(0.0, 5.0), (None, 5.0), (1.0, 1.0)])
def test_a_gradient_that_is_not_clipped_stays(clip, norm):
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    module = SimpleNamespace(config=ImagesConfig(clip=clip), parameters=lambda: [weight])
    ImageModule.configure_gradient_clipping(module, None)
    assert weight.grad.norm().item() == pytest.approx(norm, rel=1e-4)


def test_other_set_may_lack_labels_and_must_have_the_shape(tmp_path):
    np.savez(tmp_path / "a.npz", images=arrays(10)["images"])
    assert load_ood(str(tmp_path / "a.npz"), None, (8, 8, 3)).x.shape == (10, 192)
    npz(tmp_path / "b.npz")
    assert len(load_ood(str(tmp_path / "b.npz"), None, (8, 8, 3)).x) == 24  # its test part
    with pytest.raises(DataError, match=r"images: got shape \(8, 8, 3\), expected \(8, 8\), that of training"):
        load_ood(str(tmp_path / "a.npz"), None, (8, 8))


@pytest.mark.parametrize("shape", [(5, 4), (4, 5, 3)])
def test_moved_images_repeat_their_edges(shape):
    torch.manual_seed(0)
    x = torch.randint(0, 256, (40, *shape), dtype=torch.uint8)
    moves = torch.randint(-3, 4, (40, 2))
    got = translated(x.flatten(1), shape, moves).view_as(x)
    for image, moved, (down, right) in zip(x, got, moves.tolist(), strict=True):
        for row in range(shape[0]):
            for column in range(shape[1]):
                source = image[min(max(row - down, 0), shape[0] - 1), min(max(column - right, 0), shape[1] - 1)]
                assert torch.equal(moved[row, column], source)


def made(seed: int = 0, **options: object) -> TrainingBatches:
    values = arrays(50)
    split = Split(torch.from_numpy(values["images"]).flatten(1), torch.from_numpy(values["labels"]))
    return TrainingBatches(split, (8, 8, 3), 8, stretch=lambda: 5, seed=seed, **{"done": lambda: 0} | options)


def test_batches_are_functions_of_seed_and_step():
    whole = [batch for first in range(0, 20, 5) for batch in made(translation=2, done=lambda first=first: first)]
    loader = made(translation=2)
    torch.rand(3)
    for step in (13, 2, 19):
        for part, expected in zip(loader.batch(step), whole[step], strict=True):
            assert torch.equal(part, expected)
    assert not torch.equal(made(seed=1, translation=2).batch(2)[0], whole[2][0])
    assert len(whole) == 20 and whole[0][0].dtype is torch.float32


def test_a_pass_sees_every_image_once_but_for_the_rest():
    loader = made()
    assert loader.steps_per_pass == 6
    values = arrays(50)["images"].reshape(50, -1)
    rows = torch.cat([loader.batch(step)[0] for step in range(6)]).floor().numpy()
    found = [int(np.flatnonzero((values == row).all(1))[0]) for row in rows]
    assert len(set(found)) == 48
    second = torch.cat([loader.batch(step)[0] for step in range(6, 12)]).floor().numpy()
    assert not np.array_equal(rows, second)


def test_noise_is_uniform_and_images_are_moved_until_they_are_not():
    state = {"moving": True}
    loader = made(translation=2, moving=lambda: state["moving"])
    still = made()
    noise = torch.cat([still.batch(step)[0] for step in range(200)]) % 1
    assert noise.min() >= 0 and noise.mean().item() == pytest.approx(0.5, abs=0.005)
    assert noise.square().mean().item() == pytest.approx(1 / 3, abs=0.005)
    assert not torch.equal(loader.batch(3)[0], still.batch(3)[0])
    state["moving"] = False
    assert torch.equal(loader.batch(3)[0], still.batch(3)[0])


def test_processes_share_what_one_would_have(monkeypatch):
    whole_x, whole_y = made(translation=1).batch(4)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(batches, "rank_and_size", lambda rank=rank: (rank, 2))
        parts.append(made(translation=1).batch(4))
    assert torch.equal(torch.stack([parts[0][0], parts[1][0]], 1).flatten(0, 1), whole_x)
    assert torch.equal(torch.stack([parts[0][1], parts[1][1]], 1).flatten(), whole_y)


def test_validation_has_the_same_noise_each_time():
    loader = FixedBatches(made().split, 16, seed=3)
    first, second = list(loader), list(loader)
    assert len(first) == len(loader) == 4
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, second, strict=True))


def test_noise_leaves_every_grey_value_in_its_cell(monkeypatch):
    """From 128 on a sum in float32 is rounded up to the next value where the noise is within 2**-17 of 1."""
    x = torch.arange(256, dtype=torch.uint8).repeat(2, 1)
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape[0], 1 - 2**-24))
    noisy = dequantized(x, seeded(0))
    exact = x.double() + 1 - 2**-24
    assert torch.equal(noisy.floor(), x.float()) and ((noisy.double() - exact).abs() <= 2**-16).all()
    split = Split(x, torch.zeros(2, dtype=torch.int64))
    made = TrainingBatches(split, (16, 16), 2, stretch=lambda: 1, done=lambda: 0, seed=0)
    assert torch.equal(made.batch(0)[0].floor(), x.float())
