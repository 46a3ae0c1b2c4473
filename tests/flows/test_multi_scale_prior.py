"""The prior of integer flows on images: by its formula, against its own samples, and what its networks may see."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from hybridkern import flows, ops
from hybridkern.flows._latents import split_latents
from hybridkern.flows._multi_scale_prior import MultiScalePrior

pytestmark = pytest.mark.usefixtures("backend")
SHAPE, DIM = (1, 8, 4), 32


def moved(prior: str, levels: int = 2) -> MultiScalePrior:
    """A prior whose networks do something, in float64."""
    torch.manual_seed(0)
    flow = flows.IDF(SHAPE, layers=1, hidden=6, prior=prior, components=3, levels=levels, center=2.0, scale=4.0)
    with torch.no_grad():
        for parameter in flow.base.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    assert isinstance(flow.base, MultiScalePrior)
    return flow.base.double()


def rows_of(prior: MultiScalePrior, level: int, z: Tensor) -> Tensor:
    """What the network of a level returns for the coarser latents, one number a latent and kind: pixel by pixel."""
    images = split_latents(z, prior.shapes)
    context = images[-1]
    for i in range(len(images) - 2, level, -1):  # the coarser ones take the place of the half that went on
        first = torch.zeros_like(images[i])
        c = first.shape[1]
        for row in range(2):
            for column in range(2):
                first[:, :, row::2, column::2] = context[:, c * (2 * row + column) :][:, :c]
        context = torch.cat([first, images[i]], 1)
    raw = prior.nets[level]((context - prior.center) / prior.scale)
    c, h, w = prior.shapes[level]
    kinds = raw.shape[1] // (4 * c)
    out = raw.new_empty(len(z), kinds, h, w, c)
    for k in range(kinds):
        for y in range(h):
            for x in range(w):
                for channel in range(c):
                    index = 4 * c * k + c * (2 * (y % 2) + x % 2) + channel
                    out[:, k, y, x, channel] = raw[:, index, y // 2, x // 2]
    return out.flatten(2)


@pytest.mark.parametrize("prior", ["logistic", "mixture"])
def test_log_prob_is_the_formula(prior: str) -> None:
    base = moved(prior)
    z = torch.randint(-9, 10, (5, DIM)).double()
    fine = math.prod(base.shapes[0])
    change = rows_of(base, 0, z)
    marginal = base.marginal
    if prior == "logistic":
        mean, log_scale = marginal.mean.expand(5, -1).clone(), marginal.log_scale.expand(5, -1).clone()
        mean[:, :fine] += 4 * change[:, 0]
        log_scale[:, :fine] += 3 * torch.tanh(change[:, 1] / 3)
        expected = ops.discretized_logistic_log_prob(z, mean, log_scale, reduction="sum")
    else:
        logits, mean, log_scale = (
            getattr(marginal, name).expand(5, -1, -1).clone() for name in ("logits", "mean", "log_scale")
        )
        logits[..., :fine] += change[:, :3]
        mean[..., :fine] += 4 * change[:, 3:6]
        log_scale[..., :fine] += 3 * torch.tanh(change[:, 6:] / 3)
        expected = ops.discretized_logistic_mixture_log_prob(z, logits, mean, log_scale, reduction="sum")
    assert change.std() > 0.1
    torch.testing.assert_close(base.log_prob(z), expected, rtol=1e-12, atol=1e-12)


def test_three_levels_see_all_coarser_ones() -> None:
    torch.manual_seed(0)
    flow = flows.IDF((1, 8, 8), layers=1, hidden=4, levels=3).double()
    base = flow.base
    assert isinstance(base, MultiScalePrior)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    z = torch.randint(-9, 10, (5, 64)).double()
    mean, log_scale = base.marginal.mean.expand(5, -1).clone(), base.marginal.log_scale.expand(5, -1).clone()
    start = 0
    for level, shape in enumerate(base.shapes[:-1]):
        change, stop = rows_of(base, level, z), start + math.prod(shape)
        mean[:, start:stop] += change[:, 0]
        log_scale[:, start:stop] += 3 * torch.tanh(change[:, 1] / 3)
        start = stop
    expected = ops.discretized_logistic_log_prob(z, mean, log_scale, reduction="sum")
    torch.testing.assert_close(base.log_prob(z), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("prior", ["logistic", "mixture"])
def test_samples_follow_the_probability(prior: str) -> None:
    """Over samples of ``p``, ``q(z) / p(z)`` has the mean 1 for every distribution ``q``; here one near ``p``."""
    base = moved(prior)
    near = copy.deepcopy(base)
    with torch.no_grad():
        near.marginal.log_scale -= 0.15
        for net in near.nets:
            net.conv3.bias += 0.05
    z = base.sample(40_000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(z, z.round())
    weights = (near.log_prob(z) - base.log_prob(z)).detach().exp()
    error = weights.std() / math.sqrt(len(weights))
    assert 0.5 < weights.std() < 5 and abs(weights.mean() - 1) < 4 * error


def test_the_coarsest_level_depends_on_nothing_and_each_other_on_the_coarser_ones() -> None:
    base = moved("logistic", levels=2)
    z = torch.randint(-9, 10, (3, DIM)).double()
    fine = math.prod(base.shapes[0])

    def of_level(level: int, values: Tensor) -> Tensor:
        context = None if level else split_latents(values, base.shapes)[1]
        return torch.stack([p.expand(3, -1) for p in base._parameters_of(level, context)])

    other = z.clone()
    other[:, :fine] += 1
    assert torch.equal(of_level(0, z), of_level(0, other))
    other = z.clone()
    other[:, fine:] += 1
    assert not torch.equal(of_level(0, z), of_level(0, other)) and torch.equal(of_level(1, z), of_level(1, other))
