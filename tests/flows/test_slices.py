"""Slices of the channels in the prior of integer flows on images: by the formula pixel by pixel, and in samples."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from hybridkern import flows, ops
from hybridkern.flows._multi_scale_prior import MultiScalePrior
from tests.codec import cases

CUTS = {2: [1, 1, 4, 4], 3: [1, 1, 3, 3, 2], 99: [1, 1] + 8 * [1]}  # of levels of 2 and 8 channels


def made(slices: int, prior: str = "mixture") -> flows.IDF:
    """A flow on 1x8x4 images whose networks do something, in float64."""
    torch.manual_seed(0)
    flow = flows.IDF(
        (1, 8, 4), layers=1, hidden=6, net="resnet", prior=prior, components=3, center=2.0, scale=4.0, slices=slices
    )
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return flow.double().eval()


def slices_of(z: Tensor, sizes: list[int]) -> list[Tensor]:
    """Images of the slices: their parts of ``z`` have channels last."""
    found, begin = [], 0
    for i, size in enumerate(sizes):
        h, w = (4, 2) if i < 2 else (2, 1)
        found.append(z[:, begin : begin + size * h * w].reshape(-1, h, w, size).permute(0, 3, 1, 2))
        begin += size * h * w
    assert begin == z.shape[1]
    return found


def change_of(base: MultiScalePrior, i: int, images: list[Tensor]) -> Tensor:
    """What the network of a slice returns, ``(B, kinds, D_i)``, number by number."""
    n, c, h, w = images[i].shape
    if i >= 2:  # of the coarsest level: the pixels of the slices after it
        raw = base.nets[i]((torch.cat(images[i + 1 :], 1) - base.center) / base.scale)
        return torch.stack(
            [raw[:, c * k + j, y, x] for k in range(9) for y in range(h) for x in range(w) for j in range(c)], 1
        ).reshape(n, 9, -1)
    blocks = [images[k][:, :, y::2, x::2] for k in range(i + 1, 2) for y in range(2) for x in range(2)]
    raw = base.nets[i]((torch.cat(images[2:] + blocks, 1) - base.center) / base.scale)
    return torch.stack(
        [
            raw[:, c * (4 * k + 2 * (y % 2) + x % 2) + j, y // 2, x // 2]
            for k in range(9)
            for y in range(h)
            for x in range(w)
            for j in range(c)
        ],
        1,
    ).reshape(n, 9, -1)


@pytest.mark.parametrize("slices", CUTS)
def test_log_prob_is_the_formula(slices: int) -> None:
    base = made(slices).base
    z = torch.randint(-9, 10, (5, 32)).double()
    images = slices_of(z, CUTS[slices])
    logits, mean, log_scale = (
        getattr(base.marginal, name).expand(5, -1, -1).clone() for name in ("logits", "mean", "log_scale")
    )
    begin = 0
    for i, image in enumerate(images[:-1]):
        change, part = change_of(base, i, images), slice(begin, begin + image[0].numel())
        assert change.std() > 0.05
        logits[..., part] += change[:, :3]
        mean[..., part] += 4 * change[:, 3:6]
        log_scale[..., part] += 3 * torch.tanh(change[:, 6:] / 3)
        begin = part.stop
    expected = ops.discretized_logistic_mixture_log_prob(z, logits, mean, log_scale, reduction="sum")
    torch.testing.assert_close(base.log_prob(z), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("prior", ["logistic", "mixture"])
def test_samples_follow_the_probability(prior: str) -> None:
    """Over samples of ``p``, ``q(z) / p(z)`` has the mean 1 for every distribution ``q``; here one near ``p``."""
    base = made(3, prior).base
    near = copy.deepcopy(base)
    with torch.no_grad():
        near.marginal.log_scale -= 0.1
        for net in near.nets:
            for parameter in net.parameters():
                parameter += 0.01 * torch.randn_like(parameter)
    z = base.sample(20_000, generator=torch.Generator().manual_seed(1))
    weights = (near.log_prob(z) - base.log_prob(z)).detach().exp()
    error = weights.std() / math.sqrt(len(weights))
    assert 0.2 < weights.std() < 5 and abs(weights.mean() - 1) < 4 * error


@pytest.mark.parametrize("slices", CUTS)
def test_each_slice_depends_on_all_after_it_and_on_no_other(slices: int) -> None:
    base = made(slices).base
    images = slices_of(torch.randint(-9, 10, (1, 32)).double(), CUTS[slices])
    for i in range(len(images)):
        known = [image.clone().requires_grad_() for image in images[i + 1 :]]
        found = base.parameters_of(i, known)
        if not known:
            assert not any(table.grad_fn is None and table.requires_grad for table in found) and i == len(images) - 1
            continue
        gradients = torch.autograd.grad(sum(table.sum() for table in found), known)
        assert all(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("slices", CUTS)
def test_latents_and_images(slices: int) -> None:
    flow, whole = made(slices), made(1)
    whole.couplings.load_state_dict(flow.couplings.state_dict())
    x = torch.randint(0, 9, (6, 1, 8, 4))
    z = flow(x)[0]
    assert torch.equal(flow.inverse(z)[0].long(), x)
    joined = whole(x)[0]  # the same latents, where a level is one slice
    fine, coarse = joined[:, :16].reshape(-1, 4, 2, 2), joined[:, 16:].reshape(-1, 2, 1, 8)
    channels = torch.cat([image.flatten(2) for image in slices_of(z, CUTS[slices])[:2]], 1)
    assert torch.equal(channels, fine.permute(0, 3, 1, 2).flatten(2))
    channels = torch.cat(slices_of(z, CUTS[slices])[2:], 1)
    assert torch.equal(channels, coarse.permute(0, 3, 1, 2))


@pytest.mark.parametrize("net", ["conv", "resnet", "densenet"])
def test_every_slice_starts_at_its_prediction(net: str) -> None:
    """A coupling predicts a quarter of the channels; slices predict more of them, from the start."""
    x = cases.images(1, 200, (1, 8, 8))
    found = []
    for slices in (1, 4):
        torch.manual_seed(0)
        flow = flows.IDF((1, 8, 8), layers=1, hidden=12, net=net, coupling="quarter", slices=slices, center=8, scale=8)
        flow.initialize(x)
        found.append(-flow.eval().log_prob(x).mean().item() / math.log(2) / 64)
    assert found[1] < found[0] - 0.03


def test_vectors_have_none() -> None:
    with pytest.raises(ValueError, match="slices: got 2, expected 1 for vectors"):
        flows.IDF(4, slices=2)
    with pytest.raises(ValueError, match="slices: got 0, expected at least 1"):
        flows.IDF((1, 8, 8), slices=0)
