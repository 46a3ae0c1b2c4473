"""Bayesian linear regression: closed forms against scipy, quadrature and scikit-learn's Gaussian process."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct

from hybridkern import flows
from hybridkern.hybrid import HybridModel, _evidence, heads, objectives

PRECISION, NOISE = 0.7, 0.4


def _data(rows: int, features: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, features))
    y = z @ rng.normal(size=features) + NOISE * rng.normal(size=rows)
    return torch.from_numpy(z), torch.from_numpy(y)


def _head(dim: int, **options: object) -> heads.BayesianLinear:
    return heads.BayesianLinear(dim, PRECISION, NOISE, **options)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("rows", "features"), [(3, 8), (8, 3), (5, 5), (1, 1), (40, 2)])
def test_evidence_is_the_density_of_the_targets(rows: int, features: int, bias: bool) -> None:
    """Equation 13 as it stands, by scipy's multivariate normal density."""
    z, y = _data(rows, features)
    design = np.column_stack([z.numpy(), np.ones(rows)]) if bias else z.numpy()
    covariance = NOISE**2 * np.eye(rows) + design @ design.T / PRECISION
    expected = scipy.stats.multivariate_normal(np.zeros(rows), covariance).logpdf(y.numpy())
    head = _head(features, bias=bias)
    assert head.log_evidence(z, y).item() == pytest.approx(expected, rel=1e-11)
    assert head.observe(z, y).observed_log_evidence().item() == pytest.approx(expected, rel=1e-10)
    shares = head.log_likelihood(z, y)
    assert shares.shape == (rows,) and shares.sum().item() == pytest.approx(expected, rel=1e-11)


def test_both_forms_agree_and_the_smaller_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    z, y = _data(6, 4)
    numbers = torch.tensor(PRECISION, dtype=torch.float64), torch.tensor(NOISE, dtype=torch.float64)
    by_rows, by_features = _evidence.evidence_of_rows, _evidence.evidence_of_features
    assert by_rows(z, y, *numbers).item() == pytest.approx(by_features(z, y, *numbers).item(), rel=1e-12)
    sizes: list[int] = []
    inner = _evidence.cholesky
    monkeypatch.setattr(_evidence, "cholesky", lambda matrix, what: sizes.append(len(matrix)) or inner(matrix, what))
    for rows, features in ((6, 4), (4, 6)):
        _evidence.evidence(*_data(rows, features), *numbers)
    assert sizes == [4, 4]


def test_evidence_by_integration_over_the_weight() -> None:
    z, y = _data(4, 1)

    def integrand(w: float) -> mpmath.mpf:
        prior = mpmath.npdf(w, 0, 1 / mpmath.sqrt(PRECISION))
        return prior * mpmath.fprod(
            mpmath.npdf(yi, w * zi, NOISE) for yi, zi in zip(y.tolist(), z[:, 0].tolist(), strict=True)
        )

    with mpmath.workdps(30):
        expected = float(mpmath.log(mpmath.quad(integrand, [-20, -5, -2, -1, 0, 1, 2, 5, 20])))
    assert _head(1).log_evidence(z, y).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("rows", "features"), [(30, 4), (5, 12)])
def test_equals_the_gaussian_process_of_scikit_learn(rows: int, features: int) -> None:
    """Kernel ``f(x)' f(x') / lambda`` on the latents of a flow."""
    torch.manual_seed(0)
    flow = flows.RealNVP(features, layers=2, hidden=8).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    x, y = _data(rows, features)
    new = _data(7, features, seed=1)[0]
    with torch.no_grad():
        z, new_z = flow(x)[0], flow(new)[0]
    kernel = ConstantKernel(1 / PRECISION, "fixed") * DotProduct(0.0, "fixed")
    process = GaussianProcessRegressor(kernel, alpha=NOISE**2, optimizer=None).fit(z.numpy(), y.numpy())
    mean, covariance = process.predict(new_z.numpy(), return_cov=True)
    model = HybridModel(flow, _head(features))
    model.head.observe(z, y)
    prediction = model(new).prediction.detach()
    np.testing.assert_allclose(model.head.mean(prediction).numpy(), mean, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(model.predict(new).numpy(), mean, rtol=1e-8, atol=1e-8)
    variance = np.diag(covariance) + NOISE**2
    np.testing.assert_allclose(model.head.variance(prediction).numpy(), variance, rtol=1e-7)
    evidence = process.log_marginal_likelihood_value_
    assert model.head.log_evidence(z, y).item() == pytest.approx(evidence, rel=1e-10)


def test_posterior() -> None:
    z, y = _data(9, 3)
    mean, factor = _head(3).observe(z, y).posterior()
    precision = PRECISION * np.eye(3) + z.numpy().T @ z.numpy() / NOISE**2
    np.testing.assert_allclose((factor @ factor.T).numpy(force=True), precision, rtol=1e-12)
    expected = np.linalg.solve(precision, z.numpy().T @ y.numpy() / NOISE**2)
    np.testing.assert_allclose(mean.numpy(force=True), expected, rtol=1e-10)


def test_predictive_density_is_a_ratio_of_evidences() -> None:
    """``p(y*|x*, data) = p(y*, data) / p(data)``: the chain rule ties prediction to evidence."""
    z, y = _data(6, 3)
    head = _head(3).observe(z[:5], y[:5])
    expected = head.log_evidence(z, y) - head.log_evidence(z[:5], y[:5])
    torch.testing.assert_close(head.log_prob(head(z[5:]), y[5:])[0], expected, rtol=1e-11, atol=1e-11)


def test_predicts_from_the_prior_before_data() -> None:
    z = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    head = _head(2)
    assert head.mean(head(z)).item() == 0
    assert head.variance(head(z)).item() == pytest.approx(25 / PRECISION + NOISE**2, rel=1e-12)
    assert head.observed_log_evidence().item() == 0
    head.observe(z, torch.ones(1)).forget()
    assert head.variance(head(z)).item() == pytest.approx(25 / PRECISION + NOISE**2, rel=1e-12)


def test_five_million_rows_in_constant_memory() -> None:
    """Statistics of 5 million float32 rows, streamed; their sums are known exactly (small whole numbers)."""
    block = torch.arange(12, dtype=torch.float32).view(4, 3) % 5
    targets = torch.tensor([1.0, -2.0, 3.0, 0.0])
    head = _head(3)
    batch, labels = block.repeat(25_000, 1), targets.repeat(25_000)
    for _ in range(50):
        head.observe(batch, labels)
    repeats = 1_250_000
    assert head.rows.item() == 5_000_000
    assert torch.equal(head.gram, repeats * (block.T @ block).double())
    assert torch.equal(head.moment, repeats * (block.T @ targets).double())
    assert sum(value.numel() for value in head.state_dict().values()) == 3 * 3 + 3 + 2 + 2
    precision = PRECISION * np.eye(3) + head.gram.numpy() / NOISE**2
    log_det = np.linalg.slogdet(precision / PRECISION)[1] + 5e6 * math.log(2 * math.pi * NOISE**2)
    mean = np.linalg.solve(precision, head.moment.numpy() / NOISE**2)
    errors = repeats * np.square(targets.numpy() - block.numpy() @ mean).sum()
    expected = -0.5 * (errors / NOISE**2 + PRECISION * mean @ mean + log_det)
    assert head.observed_log_evidence().item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("rows", "features"), [(3, 5), (5, 3)])
def test_gradients(rows: int, features: int) -> None:
    z, y = _data(rows, features)
    head = _head(features, trainable=True)
    hyper = (head.log_prior_precision, head.log_noise)
    assert torch.autograd.gradcheck(lambda z, y, *_: head.log_evidence(z, y), (z.requires_grad_(), y, *hyper))
    head.observe(z, y)
    assert torch.autograd.gradcheck(lambda z, *_: head(z), (z, *hyper))


def test_the_flow_trains_through_the_evidence() -> None:
    torch.manual_seed(0)
    x = _data(40, 2)[0].float()
    model = HybridModel(flows.RealNVP(2, layers=2, hidden=8), _head(2, trainable=True))
    targets = torch.sin(2 * x[:, 0]) + x[:, 1]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.loss(x, targets, objectives.Weighted(0.1))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3
    with torch.no_grad():
        z, log_px = model.flow(x)[0], model.log_prob(x)
        expected = -model.head.log_evidence(z, targets) / 40 - 0.1 * log_px.mean()
        assert model.loss(x, targets, objectives.Weighted(0.1)).item() == pytest.approx(expected.item(), rel=1e-5)
        model.head.observe(z, targets)
        joint = model.log_joint(x, targets)
    torch.testing.assert_close(joint, model.head.log_prob(model(x).prediction, targets) + log_px)


def test_stays_in_float64_when_the_model_is_converted() -> None:
    z, y = _data(9, 3)
    head = _head(3).observe(z, y)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    head.float().bfloat16().to(torch.float32)
    for name, value in head.state_dict().items():
        assert value.dtype == torch.float64 and torch.equal(value, before[name]), name
    assert head(z.float()).dtype == torch.float32
    other = _head(3)
    other.load_state_dict(before)
    assert torch.equal(other(z), head(z))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_from_the_meta_device(dtype: torch.dtype) -> None:
    z, y = _data(20, 3)
    known = _head(3).observe(z, y)
    with torch.device("meta"):
        head = _head(3).to(dtype)
    head.to_empty(device="cpu").load_state_dict(known.state_dict())
    assert {value.dtype for value in head.state_dict().values()} == {torch.float64}
    assert torch.equal(head(z), known(z))


@pytest.mark.parametrize("seed", range(3))
def test_maximal_evidence_is_the_one_scipy_finds(seed: int) -> None:
    z, y = _data(60, 4, seed)
    head = _head(4).observe(z, 3 * y)
    best = head.maximize_evidence()
    assert best == pytest.approx(head.log_evidence(z, 3 * y).item(), rel=1e-10)

    def negative(logs: np.ndarray) -> float:
        covariance = math.exp(2 * logs[1]) * np.eye(60) + z.numpy() @ z.numpy().T / math.exp(logs[0])
        return -scipy.stats.multivariate_normal(np.zeros(60), covariance).logpdf(3 * y.numpy())

    options = {"xatol": 1e-8, "fatol": 1e-10, "maxiter": 4000}
    found = scipy.optimize.minimize(negative, [0.0, 0.0], method="Nelder-Mead", options=options)
    assert best == pytest.approx(-found.fun, rel=1e-9)
    logs = [head.log_prior_precision.item(), head.log_noise.item()]
    np.testing.assert_allclose(logs, found.x, atol=1e-4)


def test_evidence_of_useless_features_sets_the_weights_to_zero() -> None:
    z, _ = _data(200, 2)
    y = torch.from_numpy(np.random.default_rng(5).normal(size=200))
    y -= z @ torch.linalg.lstsq(z, y[:, None]).solution[:, 0]
    head = _head(2).observe(z, y)
    head.maximize_evidence()
    assert head.mean(head(z)).abs().max() < 1e-8
    assert head.noise.item() == pytest.approx(y.square().mean().sqrt().item(), rel=1e-6)


def test_dependent_features_are_no_difficulty() -> None:
    """A singular design matrix: the prior makes the posterior proper, and the answer is that of the merged feature."""
    z, y = _data(20, 1)
    twice = torch.cat([z, z, torch.zeros_like(z)], 1)
    head = _head(3).observe(twice, y)
    merged = heads.BayesianLinear(1, PRECISION / 2, NOISE).observe(z, y)
    torch.testing.assert_close(head(twice), merged(z), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(head.log_evidence(twice, y), merged.log_evidence(z, y), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        torch.tensor(head.maximize_evidence()), torch.tensor(merged.maximize_evidence()), rtol=1e-9, atol=1e-9
    )


def test_singular_to_working_precision_is_refused() -> None:
    z, y = _data(20, 1)
    twice = 1e6 * torch.cat([z, z], 1)
    head = heads.BayesianLinear(2, 1e-12, 1e-3).observe(twice, y)
    for call in (lambda: head(twice), lambda: head.log_evidence(twice, y)):
        with pytest.raises(ValueError, match=r"design matrix: singular .* expected a larger prior_precision"):
            call()


def test_empty_batch() -> None:
    head, z, y = _head(3), torch.zeros(0, 3), torch.zeros(0)
    assert head(z).shape == (0, 2) and head.log_likelihood(z, y).shape == (0,)
    assert head.log_evidence(z, y).item() == 0
    head.observe(z, y)
    assert head.rows == 0


NAN = torch.tensor([[0.0, 1.0], [2.0, math.nan]])
BAD = [
    (lambda h: h.observe(NAN, torch.zeros(2)), ValueError, "z: got nan in row 1, dimension 1, expected finite"),
    (lambda h: h.log_evidence(NAN, torch.zeros(2)), ValueError, "z: got nan in row 1, dimension 1"),
    (lambda h: h(NAN), ValueError, "z: got nan in row 1, dimension 1"),
    (lambda h: h.observe(torch.zeros(1, 2), torch.tensor([math.inf])), ValueError, "y: got inf in row 0"),
    (lambda h: h.observe(torch.zeros(2, 3), torch.zeros(2)), ValueError, r"z: got shape \(2, 3\), expected \(B, 2\)"),
    (lambda h: h.observe(torch.zeros(2, 2), torch.zeros(3)), ValueError, r"y: got shape \(3,\), expected \(2,\)"),
    (lambda h: h.observe(torch.zeros(2, 2), torch.zeros(2).long()), TypeError, "y: got torch.int64, expected a float"),
    (lambda h: h(torch.zeros(2, 2).long()), TypeError, "z: got torch.int64, expected a floating-point tensor"),
    (lambda h: h.maximize_evidence(), ValueError, "observed data: got no rows"),
    (lambda h: heads.BayesianLinear(2, 0.0, 1.0), ValueError, "prior_precision: got 0.0, expected a finite, positive"),
    (lambda h: heads.BayesianLinear(2, 1.0, math.nan), ValueError, "noise: got nan, expected a finite, positive"),
    (lambda h: heads.BayesianLinear(0, 1.0, 1.0), ValueError, "dim: got 0, expected a positive integer"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_arguments(call: object, error: type[Exception], message: str) -> None:
    head = _head(2)
    with pytest.raises(error, match=message):
        call(head)
    assert not any(value.any() for value in head.statistics), "nothing was written"


def test_evidence_without_a_maximum_is_refused() -> None:
    z, y = _data(3, 3)
    head = _head(3).observe(z, y)
    with pytest.raises(ValueError, match="3 rows are explained without error by 3 independent features"):
        head.maximize_evidence()
    z, _ = _data(30, 3)
    with pytest.raises(ValueError, match="30 rows are explained without error"):
        _head(3).observe(z, z @ torch.ones(3, dtype=torch.float64)).maximize_evidence()


def test_evidence_of_targets_far_from_0() -> None:
    """From the statistics it is right to 1e-14 of ``y'y / noise**2``; at 3e6 deviations it was off by 111 nats."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(20_000, 3, generator=generator, dtype=torch.float64)
    y = z @ torch.tensor([1.0, 2.0, -1.0]).double() + torch.randn(len(z), generator=generator, dtype=torch.float64)
    for mean in (0.0, 1e3, 1e5):
        head = heads.BayesianLinear(3, bias=True).observe(z, y + mean)
        found = head.maximize_evidence()
        assert head.noise.item() == pytest.approx(1.00395, rel=2e-4)
        wanted = head.log_evidence(z, y + mean).item()
        assert abs(found - wanted) < 1e-9 + 1e-14 * ((y + mean).square().sum() / head.noise.square()).item()
    head = heads.BayesianLinear(3, bias=True).observe(z, y + 3e6)
    with pytest.raises(ValueError, match=r"20000 rows are explained without error by 4 .* \(subtract their mean\)"):
        head.maximize_evidence()
