"""The comparison of likelihoods: same start, same batches, and a difference is seen."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor, nn

from benchmarks.glow import quality, sides
from benchmarks.glow.eager import squeeze, unsqueeze
from benchmarks.glow.side import Architecture, Side

TINY = Architecture((3, 8, 8), levels=2, steps=2, hidden=16)


def test_squeeze_takes_blocks_of_pixels() -> None:
    x = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    y = squeeze(x)
    assert y.shape == (2, 12, 2, 3) and torch.equal(unsqueeze(y), x)
    for row, column in itertools.product(range(2), range(2)):
        assert torch.equal(y[:, 3 * (2 * row + column) :][:, :3], x[:, :, row::2, column::2])


def test_batches_are_the_same_for_the_same_seed() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
    first, second, other = (torch.stack(list(quality.batches(images, 3, 5, seed))) for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert first.shape == (3, 5, 1, 1, 1) and float(first.min()) >= -0.5 and float(first.max()) < 0.5


class Uniform(nn.Module):
    """Uniform on the cube of images."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x))


def test_bits_per_dimension_of_a_uniform_density_are_eight() -> None:
    model = Uniform()
    side = Side("uniform", model, model, lambda n: torch.empty(0), ())
    images = torch.zeros(250, 3, 2, 2, dtype=torch.uint8)
    assert quality.bits_per_dim(side, images, seed=0) == 8.0
    side = Side("half", model, lambda x: model(x) + 12 * math.log(2), lambda n: torch.empty(0), ())
    assert quality.bits_per_dim(side, images, seed=0) == pytest.approx(7.0)


def test_learning_rate_rises_stays_and_falls() -> None:
    rates = [quality.learning_rate(step, 300, 2.0) for step in range(300)]
    assert rates[0] == pytest.approx(2 / 50) and rates[49:200] == [2.0] * 151
    assert rates[250] == pytest.approx(1.0) and rates[-1] == pytest.approx(2 / 100)
    assert all(a > b for a, b in itertools.pairwise(rates[200:]))


def test_verdict() -> None:
    assert quality.verdict({"a": (9.0, 3.0), "b": (8.0, 3.019)})
    assert not quality.verdict({"a": (9.0, 3.0), "b": (9.0, 3.03)})
    assert not quality.verdict({"a": (9.0, 3.0), "b": (9.0, math.nan)})


def test_images_are_parted_by_the_files_split(tmp_path: Path) -> None:
    images = numpy.arange(4 * 2 * 2 * 3, dtype=numpy.uint8).reshape(4, 2, 2, 3)
    numpy.savez(tmp_path / "d.npz", images=images, suggested_split=numpy.array([0, -1, 1, 0], numpy.int8))
    data = quality.load(tmp_path / "d.npz", (3, 2, 2))
    assert torch.equal(data.train, torch.from_numpy(images[[0, 3]]).permute(0, 3, 1, 2)) and len(data.held_out) == 1
    numpy.savez(tmp_path / "bare.npz", images=images)
    with pytest.raises(ValueError, match="neither 'split' nor"):
        quality.load(tmp_path / "bare.npz", (3, 2, 2))


if sides.missing("ours") is None:

    def test_all_sides_start_as_the_same_function() -> None:
        x = torch.rand(6, 3, 8, 8) - 0.5
        eager, ours = quality.same_start(("eager", "ours"), TINY, x, seed=0)
        for side in (eager, ours):
            side.model.eval()
        generator = torch.Generator().manual_seed(1)
        for net in ours.networks:  # networks start at zero: let them do something
            net.conv3.weight.data.normal_(std=0.05, generator=generator)
        eager.model.take_over(ours.model)
        expected = ours.log_prob(x)
        assert float(expected.detach().std()) > 0
        # a sum of 192 numbers after four coupling networks in float32, in another order
        torch.testing.assert_close(eager.log_prob(x), expected, rtol=1e-5, atol=1e-3)

    def test_short_training_ends_alike() -> None:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (40, 3, 8, 8), generator=generator, dtype=torch.uint8)
        data = quality.Images(images[:30], images[30:])
        found = quality.compare(quality.NAMES, TINY, data, steps=5, batch=4, lr=1e-3, seed=0)
        assert set(found) == set(quality.NAMES) and quality.verdict(found)
        assert all(after != before for before, after in found.values())
