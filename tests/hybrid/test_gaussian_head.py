"""Regression with learned noise: the density in the units of the target, normalization, bad targets."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import scipy.stats
import torch

from hybridkern.hybrid import heads

every_noise = pytest.mark.parametrize("noise", ["shared", "input"])


def _data(n: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(n, 3, generator=generator, dtype=torch.float64) + 5
    return z, 40 * z[:, 0] - 100 + 25 * torch.randn(n, generator=generator, dtype=torch.float64)


@every_noise
def test_density_is_the_normal_one_in_units_of_the_target(noise: str) -> None:
    torch.manual_seed(0)
    z, y = _data()
    head = heads.Gaussian(3, hidden=(4,), noise=noise).double()
    head.initialize(z, y)
    prediction = head(z)
    assert prediction.shape == (50, 2)
    mean, std = head.mean(prediction).detach().numpy(), head.std(prediction).detach().numpy()
    expected = scipy.stats.norm.logpdf(y.numpy(), mean, std)
    np.testing.assert_allclose(head.log_prob(prediction, y).detach().numpy(), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(head.variance(prediction).detach().numpy(), std**2, rtol=1e-12)
    assert torch.equal(head.predict(prediction), head.mean(prediction))
    shared = np.unique(std).size == 1
    assert shared == (noise == "shared")


def test_network_sees_and_gives_normalized_numbers() -> None:
    torch.manual_seed(0)
    z, y = _data()
    head = heads.Gaussian(3).double()
    head.initialize(z, y)
    z_scale = (z - z.mean(0)).square().mean().sqrt()
    out = head.net((z - z.mean(0)) / z_scale)[:, 0]
    expected = out * y.std(correction=0) + y.mean()
    torch.testing.assert_close(head.mean(head(z)), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(head.std(head(z)), y.std(correction=0).expand(50), rtol=1e-12, atol=1e-12)
    other = heads.Gaussian(3).double()
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(z), head(z))


def test_learns_line_and_noise() -> None:
    z, y = _data(400)
    head = heads.Gaussian(3).double()
    head.initialize(z, y)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = -head.log_prob(head(z), y).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    design = np.column_stack([z.numpy(), np.ones(400)])
    weights, residuals, *_ = np.linalg.lstsq(design, y.numpy(), rcond=None)
    np.testing.assert_allclose(head.mean(head(z)).detach().numpy(), design @ weights, rtol=1e-4, atol=0.01)
    assert head.std(head(z))[0].item() == pytest.approx(math.sqrt(residuals[0] / 400), rel=1e-4)


@every_noise
def test_gradients(noise: str) -> None:
    torch.manual_seed(0)
    z, y = _data(4)
    head = heads.Gaussian(3, hidden=(3,), noise=noise, activation=torch.nn.Tanh).double()
    head.initialize(z, y)
    assert torch.autograd.gradcheck(lambda z, y: head.log_prob(head(z), y), (z.requires_grad_(), y.requires_grad_()))
    head.log_prob(head(z), y).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in head.parameters())


def test_noise_from_a_network_is_bounded() -> None:
    head = heads.Gaussian(1, noise="input")
    std = head.std(head(torch.tensor([[1e30], [-1e30]])))
    assert std.isfinite().all() and (std > 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_converted_heads_leave_means_their_digits(dtype: torch.dtype) -> None:
    """Float16 ends at 65504, and bfloat16 has numbers 512 apart there."""
    torch.manual_seed(0)
    z, y = (value.float() for value in _data())
    y = y + 1e5
    head = heads.Gaussian(3)
    head.initialize(z, y)
    expected = head.mean(head(z))
    lowered = copy.deepcopy(head).to(dtype)
    found = lowered.mean(lowered(z.to(dtype)))
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05 * float(y.std()))
    assert lowered.double().target_center.dtype is torch.float64
    assert copy.deepcopy(head).to("meta").to(dtype).target_scale.dtype is torch.float32


@every_noise
def test_autocast_leaves_means_their_digits(noise: str) -> None:
    """The network is lowered, and not what it is added to: bfloat16 has numbers 8 apart beyond 1024."""
    torch.manual_seed(0)
    z, y = (value.float() for value in _data())
    y = 0.01 * y + 2000
    head = heads.Gaussian(3, noise=noise)
    head.initialize(z, y)
    expected = head(z)
    with torch.autocast("cpu", torch.bfloat16):
        found = head(z)
        log_p = head.log_prob(found, y)
    assert found.dtype is log_p.dtype is torch.float32
    torch.testing.assert_close(head.mean(found), head.mean(expected), rtol=0, atol=0.02 * float(y.std()))
    torch.testing.assert_close(head.std(found), head.std(expected), rtol=0.02, atol=0)


def test_low_precision_predictions_count_in_float32() -> None:
    head = heads.Gaussian(3)
    assert head.log_prob(torch.zeros(2, 2, dtype=torch.bfloat16), torch.ones(2)).dtype == torch.float32


BAD = [
    (lambda h: heads.Gaussian(3, noise="none"), ValueError, "noise: got 'none', expected 'shared' or 'input'"),
    (lambda h: heads.Gaussian(0), ValueError, "dim: got 0, expected a positive integer"),
    (lambda h: h.log_prob(torch.zeros(2, 2), torch.tensor([0, 1])), TypeError, "y: got torch.int64, expected a float"),
    (lambda h: h.log_prob(torch.zeros(2, 2), torch.zeros(3)), ValueError, r"y: got shape \(3,\), expected \(2,\)"),
    (
        lambda h: h.log_prob(torch.zeros(2, 2), torch.tensor([0.0, math.nan])),
        ValueError,
        "y: got nan in row 1, expected finite numbers only",
    ),
    (
        lambda h: h.initialize(_data()[0].float(), torch.ones(50)),
        ValueError,
        "y: got targets of standard deviation 0.0, expected a positive one",
    ),
    (lambda h: h.initialize(torch.full((5, 3), math.nan)), ValueError, "z: got nan in row 0, dimension"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_arguments(call: object, error: type[Exception], message: str) -> None:
    head = heads.Gaussian(3)
    with pytest.raises(error, match=message):
        call(head)
    assert head.scale == 1 and head.target_scale == 1, "nothing was written"


def test_targets_keep_their_digits_beside_predictions_in_float32() -> None:
    """1000000.1 is 1000000.125 in float32: half a deviation of 0.05 off."""
    y = torch.tensor([1e6 + 0.1, 1e6 - 0.03], dtype=torch.float64, requires_grad=True)
    prediction = torch.tensor([[1e6, math.log(0.05)]] * 2, requires_grad=True)
    found = heads.Gaussian(1).log_prob(prediction, y)
    mean, log_std = prediction.detach().double().unbind(1)
    wanted = torch.distributions.Normal(mean, log_std.exp()).log_prob(y.detach())
    assert found.dtype is torch.float32
    torch.testing.assert_close(found.detach().double(), wanted, rtol=1e-6, atol=1e-6)
    found.sum().backward()
    slope = (mean - y.detach()) / log_std.exp().square()
    torch.testing.assert_close(y.grad, slope, rtol=1e-5, atol=0)
    torch.testing.assert_close(prediction.grad[:, 0].double(), -slope, rtol=1e-5, atol=0)
