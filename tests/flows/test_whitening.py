"""1x1 convolutions that start from data: what mixings return is uncorrelated, slow channels stay longest."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from hybridkern import flows, transforms
from hybridkern.hybrid import heads
from hybridkern.transforms.squeeze import squeeze
from tests.flows.test_glow_numerics import DATA, SHAPE


def smooth_images(n: int, seed: int = 0) -> Tensor:
    """Blurred noise with correlated colors, as natural images are; float64."""
    noise = np.random.default_rng(seed).normal(size=(n, 3, 8, 8))
    blurred = scipy.ndimage.gaussian_filter(noise, (0, 0, 1, 1), mode="wrap")
    colors = np.array([[1.0, 0.0, 0.0], [0.9, 0.3, 0.0], [0.8, 0.1, 0.4]])
    return torch.from_numpy(np.einsum("dc,ncij->ndij", colors, blurred) + 0.1)


def whitened(**options) -> flows.Glow:
    torch.manual_seed(0)
    flow = flows.Glow(SHAPE, **({"levels": 2, "steps": 3, "hidden": 8, "form": "exp"} | options)).double()
    flow.initialize(smooth_images(400), whiten=True)
    return flow.eval()


def test_one_step_is_the_gaussian_of_its_blocks() -> None:
    """A step alone, with a network that returns zeros, has the density of a normal with the data's covariance."""
    flow = whitened(levels=1, steps=1)
    rows = torch.cat(squeeze(smooth_images(400)), 1).permute(0, 2, 3, 1).reshape(-1, 12).numpy()
    normal = scipy.stats.multivariate_normal(rows.mean(0), np.cov(rows.T, bias=True))
    x = smooth_images(20, seed=1)
    blocks = torch.cat(squeeze(x), 1).permute(0, 2, 3, 1).reshape(20, 16, 12).numpy()
    expected = normal.logpdf(blocks).sum(1)
    np.testing.assert_allclose(flow.log_prob(x).detach().numpy(), expected, rtol=2e-6)


@pytest.mark.parametrize("norm", ["actnorm", "batchnorm"])
def test_every_mixing_returns_uncorrelated_channels_and_the_last_one_slow_ones_first(norm: str) -> None:
    flow = whitened(norm=norm)
    level = flow.levels[0]
    state, log_det = squeeze(smooth_images(400)), torch.zeros(400, dtype=torch.float64)
    mixed = level.mixing()
    for i, step in enumerate(level.steps):
        state, log_det = step(state, log_det, mixed.weight[i], mixed.bias[i])  # form "exp" starts as the identity
        channels = torch.cat(state, 1).detach().numpy()
        rows = channels.transpose(1, 0, 2, 3).reshape(12, -1)
        # the 1e-5 of batch norm's variance, and factors stored in float32
        np.testing.assert_allclose(np.cov(rows, bias=True), np.eye(12), atol=2e-4)
    along = [np.mean(channels[:, c, :, 1:] * channels[:, c, :, :-1]) for c in range(12)]
    down = [np.mean(channels[:, c, 1:] * channels[:, c, :-1]) for c in range(12)]
    slowness = np.add(along, down)
    assert np.all(np.diff(slowness) < 1e-4)
    assert slowness[0] > slowness[-1] + 0.1


def test_likelihood_starts_higher_and_the_flow_still_inverts() -> None:
    x = smooth_images(50, seed=1)
    torch.manual_seed(0)
    plain = flows.Glow(SHAPE, levels=2, steps=3, hidden=8, form="exp").double()
    plain.initialize(smooth_images(400))
    flow = whitened()
    assert flow.log_prob(x).mean() > plain.eval().log_prob(x).mean() + 0.3 * flow.dim
    z, log_det = flow(x)
    back, log_det_back = flow.inverse(z)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(log_det_back, -log_det, rtol=1e-10, atol=1e-10)


def test_checkpoint_keeps_it() -> None:
    flow = whitened()
    other = flows.Glow(SHAPE, levels=2, steps=3, hidden=8, form="exp").double()
    other.load_state_dict(flow.state_dict())
    x = smooth_images(4, seed=1)
    assert torch.equal(other.eval().log_prob(x), flow.log_prob(x))


@pytest.mark.parametrize("norm", ["actnorm", "batchnorm"])
@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("data", DATA)
def test_data_without_variance(data: str, count: int, norm: str) -> None:
    torch.manual_seed(0)
    flow = flows.Glow(SHAPE, levels=3, steps=2, hidden=8, norm=norm)
    flow.initialize(DATA[data](count), whiten=True)
    flow.eval()
    with flows.check_finite(flow):
        assert flow.log_prob(smooth_images(4).float()).isfinite().all()
        assert flow.sample(4).isfinite().all()


def test_no_images_leave_the_flow_as_it_is() -> None:
    torch.manual_seed(0)
    flow = flows.Glow(SHAPE, levels=2, steps=2, hidden=8).double()
    x = smooth_images(4)
    with pytest.warns(RuntimeWarning, match="used before it was initialized"):
        before = flow.eval().log_prob(x)
    flow.initialize(x[:0], whiten=True)
    # no data: the mixings stay, but for the order in which the last one of a level returns its channels
    torch.testing.assert_close(flow.log_prob(x), before, rtol=0.2, atol=0)


def test_fixed_permutations_cannot_be_whitened() -> None:
    flow = flows.Glow(SHAPE, levels=2, steps=2, hidden=8, permutation="reverse")
    before = flow.state_dict()
    with pytest.raises(ValueError, match="whiten: got True, expected permutation='conv1x1', and it is 'reverse'"):
        flow.initialize(smooth_images(4).float(), whiten=True)
    assert all(torch.equal(value, before[name]) for name, value in flow.state_dict().items())


def _rank(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    torch.manual_seed(0)
    flow = flows.Glow(SHAPE, levels=2, steps=3, hidden=8, form="exp").double()
    flow.initialize(smooth_images(400)[rank::world], whiten=True)
    states = [module.state_dict() for module in (flow, started_residual(rank, world), started_others(rank, world))]
    torch.save(states, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def started_residual(rank: int, world: int) -> flows.Residual:
    """Started by its first batch in training mode; one dimension is far from 0, one hardly varies."""
    torch.manual_seed(0)
    flow = flows.Residual(3, blocks=2, hidden=(8,)).double()
    x = torch.randn(40, 3).double() * torch.tensor([2.0, 0.1, 1e-8]) + torch.tensor([1.0, 1e4, 3.0])
    flow(x.split([10, 30])[rank] if world > 1 else x)
    return flow


def started_others(rank: int, world: int) -> nn.ModuleDict:
    """Started by a call of ``initialize``; the last one of them draws."""
    torch.manual_seed(0)
    started = nn.ModuleDict(
        {
            "compose": flows.Compose(3, [transforms.ActNorm(3), transforms.LULinear(3), transforms.ActNorm(3)]),
            "logistic": flows.IDF(3, layers=1, parts=2, hidden=4),
            "mixture": flows.IDF(3, layers=1, parts=2, hidden=4, prior="mixture", components=3),
            "categorical": heads.Categorical(3, 2),
            "gaussian": heads.Gaussian(3),
            "planar": flows.Planar(3, layers=4),
        }
    ).double()
    x = (10 * torch.randn(40, 3).double()).round()
    x, y = (value.split([10, 30])[rank] if world > 1 else value for value in (x, x.sum(1)))
    torch.manual_seed(rank)
    for module in started.values():
        module.initialize(x, y) if isinstance(module, heads.Gaussian) else module.initialize(x)
    return started


def test_ranks_start_from_the_data_of_all(tmp_path) -> None:
    mp.start_processes(_rank, args=(2, str(tmp_path)), nprocs=2, start_method="spawn")
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    expected_state = started_residual(0, 1).state_dict()
    for _, state, _ in found:
        torch.testing.assert_close(state, expected_state, rtol=1e-9, atol=1e-9)
    others = started_others(0, 1).state_dict()
    assert all(torch.equal(value, found[1][2][name]) for name, value in found[0][2].items())
    torch.testing.assert_close(found[0][2], others, rtol=1e-9, atol=1e-9)
    first, second = (glow for glow, *_ in found)
    flow = whitened()
    x = smooth_images(4, seed=1)
    expected = flow.log_prob(x)
    for state in (first, second):
        assert all(torch.equal(value, first[name]) for name, value in state.items())
        flow.load_state_dict(state)
        torch.testing.assert_close(flow.log_prob(x), expected, rtol=1e-5, atol=0)
