"""Bayesian logistic regression: integrals against mpmath, the bound against the evidence, Laplace against scipy."""

from __future__ import annotations

import math
from functools import cache

import mpmath
import numpy as np
import pytest
import scipy.optimize
import torch

from hybridkern import flows
from hybridkern.hybrid import HybridModel, heads, objectives
from hybridkern.hybrid._logistic_normal import expected_log_sigmoid, log_expected_sigmoid

MEANS = (-200.0, -30.0, -3.0, -0.1, 0.0, 1.0, 7.0, 50.0)
DEVIATIONS = (1e-3, 0.5, 1.999, 2.0, 5.0, 30.0)


@cache
def _expectations(mean: float, std: float) -> tuple[float, float]:
    """``log E[sigma(s)]`` and ``E[log sigma(s)]`` to 15 digits and more."""
    with mpmath.workdps(25):
        m, s = mpmath.mpf(mean), mpmath.mpf(std)
        centers = [m + shift for shift in (0, s * s / 2, s * s)]
        points = {c + k * s for c in centers for k in (-12, -6, -2, 0, 2, 6, 12)} | {mpmath.mpf(0)}
        points |= {mpmath.mpf(k) for k in (-60, -20, -5, 5, 20, 60)}
        ends = sorted(p for p in points if m - 12 * s <= p <= m + s * s + 12 * s)

        def log_sigmoid(x: mpmath.mpf) -> mpmath.mpf:
            return -mpmath.log1p(mpmath.exp(-x)) if x > 0 else x - mpmath.log1p(mpmath.exp(x))

        # a factor of the size of the result keeps the quadrature's absolute error small beside it
        scale = min(mpmath.mpf(0), m + s * s / 2)
        sigmoid = mpmath.quad(lambda x: mpmath.npdf(x, m, s) * mpmath.exp(log_sigmoid(x) - scale), ends)
        log = mpmath.quad(lambda x: mpmath.npdf(x, m, s) * log_sigmoid(x), ends)
        return float(mpmath.log(sigmoid) + scale), float(log)


@pytest.mark.parametrize("std", DEVIATIONS)
def test_expectations_of_the_logistic_function(std: float) -> None:
    means = torch.tensor(MEANS, dtype=torch.float64)
    stds = torch.full_like(means, std)
    expected = np.array([_expectations(mean, std) for mean in MEANS])
    np.testing.assert_allclose(log_expected_sigmoid(means, stds).numpy(), expected[:, 0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(expected_log_sigmoid(means, stds).numpy(), expected[:, 1], rtol=1e-9, atol=1e-12)


def test_expectations_without_spread_are_the_function() -> None:
    means = torch.tensor([-700.0, -1.0, 0.0, 3.0], dtype=torch.float64)
    exact = torch.from_numpy(-np.logaddexp(0, -means.numpy()))
    for function in (log_expected_sigmoid, expected_log_sigmoid):
        torch.testing.assert_close(function(means, torch.zeros(4, dtype=torch.float64)), exact, rtol=1e-12, atol=1e-14)


def test_gradients_of_the_expectations() -> None:
    mean = torch.tensor([-9.0, -2.0, 0.3, 4.0, -30.0], dtype=torch.float64, requires_grad=True)
    std = torch.tensor([0.5, 1.5, 3.0, 7.0, 6.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_expected_sigmoid, (mean, std))
    assert torch.autograd.gradcheck(expected_log_sigmoid, (mean, std))


def _data(rows: int = 12, features: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, features))
    y = rng.uniform(size=rows) < 1 / (1 + np.exp(-2 * z.sum(1)))
    return torch.from_numpy(z), torch.from_numpy(y.astype(np.int64))


def _random(head: heads.BayesianLogistic, seed: int = 0) -> heads.BayesianLogistic:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return head.double()


def _log_evidence(z: torch.Tensor, y: torch.Tensor, precision: float) -> tuple[float, float]:
    """``log p(y|Z)`` and the posterior mean by integration over the one weight."""
    signs, values = (2 * y - 1).tolist(), z[:, 0].tolist()

    def joint(w: float) -> mpmath.mpf:
        prior = mpmath.npdf(w, 0, 1 / mpmath.sqrt(precision))
        return prior * mpmath.fprod(1 / (1 + mpmath.exp(-s * w * v)) for s, v in zip(signs, values, strict=True))

    ends = [-30, -8, -3, -1, 0, 1, 2, 3, 5, 8, 30]
    with mpmath.workdps(25):
        total = mpmath.quad(joint, ends)
        return float(mpmath.log(total)), float(mpmath.quad(lambda w: w * joint(w), ends) / total)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize("bias", [False, True])
def test_elbo_by_its_definition(covariance: str, bias: bool) -> None:
    """Equation 14: expected log-likelihood minus divergence, each by another route (quadrature, torch's formula)."""
    z, y = _data(5, 2)
    head = _random(heads.BayesianLogistic(2, 0.5, bias=bias, covariance=covariance))
    features = torch.cat([z, torch.ones(5, 1, dtype=torch.float64)], 1) if bias else z
    count = features.shape[1]
    q = torch.distributions.MultivariateNormal(head.mean, scale_tril=head.cholesky())
    p = torch.distributions.MultivariateNormal(torch.zeros(count).double(), torch.eye(count).double() / 0.5)
    divergence = torch.distributions.kl_divergence(q, p)
    torch.testing.assert_close(head.kl_divergence(), divergence, rtol=1e-12, atol=1e-12)
    likelihood = 0.0
    for row, label in zip(features, y.tolist(), strict=True):
        variance = (row @ q.covariance_matrix @ row).item()
        likelihood += _expectations((2 * label - 1) * (row @ head.mean).item(), math.sqrt(variance))[1]
    assert head.elbo(z, y).item() == pytest.approx(likelihood - divergence.item(), rel=1e-9)
    assert head.log_likelihood(z, y).sum().item() == pytest.approx(head.elbo(z, y).item(), rel=1e-12)


def test_starts_at_the_prior() -> None:
    head = heads.BayesianLogistic(3, 0.25)
    assert head.kl_divergence().item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(head.cholesky(), 2 * torch.eye(3, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_shares_of_minibatches_sum_to_the_bound() -> None:
    z, y = _data(12, 2)
    head = _random(heads.BayesianLogistic(2, rows=12))
    parts = torch.cat([head.log_likelihood(z[:5], y[:5]), head.log_likelihood(z[5:], y[5:])])
    torch.testing.assert_close(parts.sum(), head.elbo(z, y), rtol=1e-12, atol=1e-12)


def test_bound_lies_below_the_evidence_and_comes_close() -> None:
    z, y = _data()
    evidence, mean = _log_evidence(z, y, 0.5)
    head = heads.BayesianLogistic(1, 0.5).double()
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = -head.elbo(z, y)
        loss.backward()
        return loss

    optimizer.step(closure)
    gap = evidence - head.elbo(z, y).item()
    assert 0 < gap < 0.02
    assert head.mean.item() == pytest.approx(mean, rel=0.02)
    assert evidence - heads.BayesianLogistic(1, 0.5).double().elbo(z, y).item() > gap + 0.5, "the prior is far below"


def test_laplace_is_the_mode_and_curvature_that_scipy_finds() -> None:
    z, y = _data(30, 3)
    head = heads.BayesianLogistic(3, 0.5).double()
    evidence = head.laplace(z, y)
    signs, design = (2 * y - 1).numpy(), z.numpy()

    def energy(w: np.ndarray) -> float:
        return np.logaddexp(0, -signs * (design @ w)).sum() + 0.25 * w @ w

    mode = scipy.optimize.minimize(energy, np.zeros(3), tol=1e-12)
    np.testing.assert_allclose(head.mean.numpy(force=True), mode.x, atol=1e-6)
    p = 1 / (1 + np.exp(-design @ head.mean.numpy(force=True)))
    hessian = design.T @ (design * (p * (1 - p))[:, None]) + 0.5 * np.eye(3)
    factor = head.cholesky().numpy(force=True)
    np.testing.assert_allclose(factor @ factor.T, np.linalg.inv(hessian), rtol=1e-9, atol=1e-12)
    log_det = np.linalg.slogdet(hessian)[1]
    assert evidence == pytest.approx(-mode.fun + 1.5 * math.log(0.5) - 0.5 * log_det, rel=1e-9)
    diagonal = heads.BayesianLogistic(3, 0.5, covariance="diagonal").double()
    diagonal.laplace(z, y)
    np.testing.assert_allclose(diagonal.cholesky().square().inverse().numpy(force=True), np.diag(np.diag(hessian)))


def test_laplace_evidence_comes_close_to_the_integral() -> None:
    z, y = _data()
    evidence, _ = _log_evidence(z, y, 0.5)
    assert heads.BayesianLogistic(1, 0.5).double().laplace(z, y) == pytest.approx(evidence, abs=0.05)


def test_laplace_of_separable_and_of_dependent_features() -> None:
    z = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]], dtype=torch.float64)
    y = torch.tensor([0, 0, 1, 1])
    head = heads.BayesianLogistic(1, 1e-3).double()
    head.laplace(1000 * z, y)
    assert head.mean.isfinite().all() and head.predict(head(1000 * z)).equal(y)
    twice = heads.BayesianLogistic(2, 1.0).double()
    twice.laplace(torch.cat([z, z], 1), y)
    once = heads.BayesianLogistic(1, 0.5).double()
    once.laplace(z, y)
    torch.testing.assert_close(twice(torch.cat([z, z], 1)), once(z), rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="precision of the posterior: singular to the working precision"):
        heads.BayesianLogistic(2, 1e-12).laplace(torch.cat([1e6 * z, 1e6 * z], 1).roll(1, 0), y)


def test_probabilities_are_the_integral_over_the_weights() -> None:
    z, y = _data(6, 2)
    head = _random(heads.BayesianLogistic(2))
    prediction = head(z)
    p = head.probabilities(prediction).detach()
    expected = [math.exp(_expectations(*row)[0]) for row in prediction.tolist()]
    np.testing.assert_allclose(p[:, 1].numpy(), expected, rtol=1e-9)
    torch.testing.assert_close(p.sum(1), torch.ones(6).double(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(head.log_prob(prediction, y), p.log()[torch.arange(6), y], rtol=1e-9, atol=1e-9)
    assert head.predict(prediction).equal(p.argmax(1))


def test_gradients() -> None:
    z, y = _data(4, 2)
    head = _random(heads.BayesianLogistic(2, bias=True))
    parameters = tuple(head.parameters())
    assert torch.autograd.gradcheck(lambda z, *_: head.elbo(z, y), (z.requires_grad_(), *parameters))
    assert torch.autograd.gradcheck(lambda z, *_: head.log_prob(head(z), y), (z, *parameters))
    at_zero = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    no_bias = _random(heads.BayesianLogistic(2))
    no_bias.elbo(at_zero, y[:1]).backward()
    assert at_zero.grad.isfinite().all()


def test_the_flow_trains_through_the_bound() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 2)
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = HybridModel(flows.RealNVP(2, layers=2, hidden=8), heads.BayesianLogistic(2, rows=64))
    model.loss(x, y, objectives.Joint()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert any(p.grad.abs().max() > 0 for p in model.flow.parameters())
    assert model.predict_proba(x).shape == (64, 2) and model.log_joint(x, y).dtype == torch.float32


BAD = [
    (lambda h: h.elbo(torch.zeros(2, 2), torch.tensor([0, 2])), ValueError, r"y: got label 2, expected 0 to 1"),
    (lambda h: h.elbo(torch.zeros(2, 2), torch.tensor([0, -1])), ValueError, r"y: got label -1 \(unlabelled\)"),
    (lambda h: h.elbo(torch.zeros(2, 2), torch.zeros(2)), TypeError, "y: got torch.float32, expected a tensor of int"),
    (lambda h: h.elbo(torch.zeros(2, 2), torch.tensor([0])), ValueError, r"y: got shape \(1,\), expected \(2,\)"),
    (lambda h: h(torch.full((1, 2), math.nan)), ValueError, "z: got nan in row 0, dimension 0"),
    (lambda h: h.laplace(torch.full((1, 2), math.inf), torch.tensor([0])), ValueError, "z: got inf in row 0"),
    (lambda h: h(torch.zeros(2, 3)), ValueError, r"z: got shape \(2, 3\), expected \(B, 2\)"),
    (lambda h: heads.BayesianLogistic(2, -1.0), ValueError, "prior_precision: got -1.0, expected a finite, positive"),
    (lambda h: heads.BayesianLogistic(2, rows=0), ValueError, "rows: got 0, expected a positive integer or None"),
    (lambda h: heads.BayesianLogistic(2, covariance="x"), ValueError, "covariance: got 'x', expected 'full' or 'diag"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_arguments(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(heads.BayesianLogistic(2))
