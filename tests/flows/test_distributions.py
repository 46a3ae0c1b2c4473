"""Base distributions: samples have the distribution that log_prob states."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from hybridkern import flows
from hybridkern.distributions import (
    ClassGaussians,
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


def _sample(n: int = 4000) -> Tensor:
    """Dimensions of different place and spread: two peaks, a broad one, one that never varies."""
    generator = torch.Generator().manual_seed(0)
    peaks = torch.where(torch.rand(n, generator=generator) < 0.5, 0.0, 16.0)
    broad = (30 + 6 * torch.randn(n, generator=generator)).round()
    return torch.stack((peaks, broad, torch.full((n,), 3.0)), 1)


def test_logistic_starts_with_the_moments_of_a_sample() -> None:
    distribution, x = DiscretizedLogistic(3), _sample()
    distribution.initialize(x)
    torch.testing.assert_close(distribution.mean.data, x.mean(0))
    std = distribution.sample(40_000, generator=torch.Generator().manual_seed(0)).std(0)
    assert std[:2].tolist() == pytest.approx(x.std(0)[:2].tolist(), rel=0.03)
    assert distribution.log_scale[2].exp().item() == pytest.approx(0.3)


@pytest.mark.parametrize("components", [1, 2, 5])
def test_mixture_starts_at_the_quantiles_of_a_sample(components: int) -> None:
    distribution, x = DiscretizedLogisticMixture(3, components), _sample()
    distribution.initialize(x)
    q = torch.linspace(0.5 / components, 1 - 0.5 / components, components)
    offset = (distribution.mean[0] - torch.quantile(x, q, dim=0)).abs().max()
    assert offset <= 0.3 + 1e-5
    if components > 1:
        assert (distribution.mean[0].diff(dim=0) > 0).all(), "equal components would stay equal"
    single = DiscretizedLogistic(3)
    single.initialize(x)
    gain = (distribution.log_prob(x) - single.log_prob(x)).mean()
    assert gain > {1: -1.5, 2: 0.0, 5: 0.5}[components]


def test_quantiles_of_more_elements_than_one_call_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = DiscretizedLogisticMixture(3, 2), DiscretizedLogisticMixture(3, 2)
    whole.initialize(_sample(50))
    monkeypatch.setattr("hybridkern.distributions._QUANTILE_LIMIT", 100)
    parts.initialize(_sample(50))
    assert torch.equal(whole.mean, parts.mean)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float64])
def test_samples_of_any_dtype_start_it(dtype: torch.dtype) -> None:
    one, other = (DiscretizedLogisticMixture(3).to(torch.float64) for _ in range(2))
    one.initialize(_sample())
    other.initialize(_sample().to(dtype))
    torch.testing.assert_close(one.mean, other.mean)
    torch.testing.assert_close(one.log_scale, other.log_scale)


@pytest.mark.parametrize("build", [DiscretizedLogistic, DiscretizedLogisticMixture])
def test_bad_samples_are_refused(build: type[DiscretizedLogistic]) -> None:
    distribution = build(3)
    before = distribution.mean.clone()
    for x, error, message in [
        ([[0.0] * 3], TypeError, "x: got list"),
        (torch.zeros(5, 2), ValueError, r"x: got shape \(5, 2\), expected \(N, 3\)"),
        (torch.zeros(0, 3), ValueError, "at least one row"),
        (torch.tensor([[0.0, float("nan"), 1.0]]), ValueError, "x: got nan in row 0, dimension 1, expected"),
    ]:
        with pytest.raises(error, match=message):
            distribution.initialize(x)
    assert torch.equal(distribution.mean, before)


DRAWS = {
    "gaussian": lambda: DiagonalGaussian(2).sample,
    "classes": lambda: ClassGaussians(2, classes=2).sample,
    "a class": lambda: partial(ClassGaussians(2, classes=2).sample_of_class, 1),
    "levels": lambda: flows.IDF((1, 4, 4), layers=2, hidden=4).base.sample,
} | {name: (lambda build=build: build().sample) for name, build in INTEGER.items()}


@pytest.mark.parametrize("name", DRAWS)
def test_what_cannot_be_drawn_is_an_error(name: str) -> None:
    draw = DRAWS[name]()
    for temperature, error in (float("nan"), ValueError), (-1.0, ValueError), ("a", TypeError):
        with pytest.raises(error, match=f"temperature: got {temperature!r}, expected a finite number of at least 0"):
            draw(3, temperature=temperature)
    for n, error in (-1, ValueError), (2.5, TypeError), (True, TypeError):
        with pytest.raises(error, match=f"n: got {n!r}, expected"):
            draw(n)
    assert draw(0).shape[0] == 0 and draw(torch.tensor(3)).shape[0] == 3
