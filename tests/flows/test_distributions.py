"""Base distributions: samples have the distribution that log_prob states."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hybridkern.distributions import (
    DiagonalGaussian,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Distribution,
    standard_logistic,
)

pytestmark = pytest.mark.usefixtures("backend")


def _moved(distribution: Distribution) -> Distribution:
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in distribution.parameters():
            parameter += 0.7 * torch.randn_like(parameter)
    return distribution


INTEGER = {
    "logistic": lambda: _moved(DiscretizedLogistic(2)),
    "mixture": lambda: _moved(DiscretizedLogisticMixture(2, components=3)),
    "mixture-of-one": lambda: _moved(DiscretizedLogisticMixture(2, components=1)),
}


def _marginal(distribution: Distribution, values: Tensor) -> Tensor:
    """Probability of each value in dim 0, from the joint over a grid that holds nearly all mass of dim 1."""
    other = torch.arange(-300.0, 301.0)
    grid = torch.cartesian_prod(values, other)
    return distribution.log_prob(grid).double().exp().view(len(values), -1).sum(1)


@pytest.mark.parametrize("name", INTEGER)
def test_integer_samples_have_the_stated_frequencies(name: str) -> None:
    distribution = INTEGER[name]()
    n = 40_000
    sample = distribution.sample(n, generator=torch.Generator().manual_seed(0))
    assert sample.shape == (n, 2) and torch.equal(sample, sample.round()) and not sample.requires_grad
    values = torch.arange(-40.0, 41.0)
    expected = _marginal(distribution, values)
    assert expected.sum().item() == pytest.approx(1.0, abs=2e-3)
    frequency = (sample[:, :1] == values).double().mean(0)
    # five standard errors of a frequency
    assert ((frequency - expected).abs() <= 5 * (expected * (1 - expected) / n).sqrt() + 1e-9).all()


@pytest.mark.parametrize("trainable", [False, True])
def test_gaussian(trainable: bool) -> None:
    distribution = _moved(DiagonalGaussian(3, trainable=trainable)).double()
    mean, scale = torch.zeros(3).double(), torch.ones(3).double()
    if trainable:
        mean, scale = distribution.mean, distribution.log_scale.exp()
    x = torch.randn(5, 3, dtype=torch.float64)
    expected = torch.distributions.Normal(mean, scale).log_prob(x).sum(1)
    torch.testing.assert_close(distribution.log_prob(x), expected, rtol=1e-12, atol=1e-12)
    sample = distribution.sample(40_000, generator=torch.Generator().manual_seed(0))
    assert sample.dtype == torch.float64 and not sample.requires_grad
    assert ((sample.mean(0) - mean).abs() <= 5 * scale / 200).all()
    assert ((sample.std(0) / scale - 1).abs() <= 5 / 280).all()


def test_components_of_a_mixture_start_apart() -> None:
    distribution = DiscretizedLogisticMixture(2, components=3)
    distribution.log_prob(torch.tensor([[4.0, -3.0]])).sum().backward()
    grad = distribution.log_scale.grad
    assert grad[0, 0, 0] != grad[0, 1, 0] != grad[0, 2, 0]


def test_uniform_zero_gives_a_finite_logistic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda shape, **options: torch.zeros(shape, dtype=options["dtype"]))
    noise = standard_logistic((3,), torch.zeros(1))
    assert noise.isfinite().all() and (noise < -30).all()


def test_number_of_components_is_checked() -> None:
    with pytest.raises(ValueError, match="components: got 0, expected a positive integer"):
        DiscretizedLogisticMixture(2, components=0)
