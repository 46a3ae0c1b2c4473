"""Variational autoencoders: their bounds against exact and integrated likelihoods, and the interface they share."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from hybridkern.hybrid import heads, objectives
from hybridkern.hybrid.vae import CCVAE, DIVA, M1M2, M2, VAE, Bernoulli, Gaussian, HybridVAE, Logistic, LogisticMixture

DIM, LATENT, NOISE = 4, 2, 0.5


class ExactPosterior(nn.Module):
    """``q(z|x)`` of a linear Gaussian decoder with orthogonal columns: the true posterior."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        x, bias = (x[:, :DIM], self.bias(x[:, DIM:])) if callable(self.bias) else (x, self.bias)
        precision = 1 + self.weight.square().sum(0) / NOISE**2
        mean = (x - bias) @ self.weight / NOISE**2 / precision
        return torch.cat((mean, -0.5 * precision.log().expand_as(mean)), 1)


def decoder() -> nn.Linear:
    torch.manual_seed(0)
    found = nn.Linear(LATENT, DIM).double()
    with torch.no_grad():
        found.weight.copy_(torch.linalg.qr(torch.randn(DIM, LATENT, dtype=torch.float64)).Q * torch.tensor([1.5, 0.7]))
    return found


def marginal(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    covariance = weight @ weight.T + NOISE**2 * torch.eye(DIM, dtype=torch.float64)
    return torch.distributions.MultivariateNormal(bias, covariance).log_prob(x)


def test_bound_is_the_likelihood_where_the_posterior_is_exact() -> None:
    net = decoder()
    model = VAE(ExactPosterior(net.weight, net.bias), net, LATENT, likelihood=Gaussian(NOISE)).double()
    x = torch.randn(6, DIM, dtype=torch.float64)
    expected = marginal(net.weight, net.bias, x)
    for found in (model.log_prob(x), model.log_prob(x, samples=5), model.run(x).log_px):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_passes_with_replaced_fields_keep_the_dimensions_of_the_data() -> None:
    out = VAE(nn.Linear(DIM, 2 * LATENT), decoder().float(), LATENT, likelihood=Gaussian(NOISE)).run(
        torch.randn(3, DIM)
    )
    other = out._replace(log_pz=out.log_pz - 1)
    assert other.dim == out.dim == DIM and torch.equal(other.log_px, out.log_pz - 1 + out.log_det)


def test_more_samples_come_closer_from_below() -> None:
    net = decoder()
    model = VAE(nn.Linear(DIM, 2 * LATENT), net, LATENT, likelihood=Gaussian(NOISE)).double()
    x = torch.randn(4, DIM, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        means = [
            torch.stack([model.log_prob(x, samples=k, generator=generator) for _ in range(400)]).mean(0)
            for k in (1, 4, 64)
        ]
    assert (means[0] < means[1]).all() and (means[1] < means[2]).all()
    assert (means[2] <= marginal(net.weight, net.bias, x) + 0.05).all()


def exact_m2() -> M2:
    torch.manual_seed(1)
    model = M2(DIM, classes=3, latent=LATENT, hidden=(), likelihood=Gaussian(NOISE)).double()
    (layer,) = [module for module in model.decoder.modules() if isinstance(module, nn.Linear)]
    with torch.no_grad():
        layer.weight[:, :LATENT] = decoder().weight

    def shift(given: Tensor) -> Tensor:
        return given @ layer.weight[:, LATENT:].T + layer.bias

    model.encoder = ExactPosterior(layer.weight[:, :LATENT], shift)
    return model


def test_m2_sums_over_the_class() -> None:
    model = exact_m2()
    x = torch.randn(5, DIM, dtype=torch.float64)
    (layer,) = [module for module in model.decoder.modules() if isinstance(module, nn.Linear)]
    shifts = layer.weight[:, LATENT:].T + layer.bias
    joint = torch.stack([marginal(layer.weight[:, :LATENT], shift, x) - math.log(3) for shift in shifts], 1)
    y = torch.tensor([0, 1, 2, 0, 1])
    with torch.no_grad():
        draws = torch.stack([model.bound_of(x, y) for _ in range(2000)])
    exact = joint.gather(1, y[:, None])[:, 0]
    assert ((draws.mean(0) - exact).abs() <= 4 * draws.std(0) / 2000**0.5).all()
    places = x.repeat_interleave(3, 0)
    model.bound_of = lambda v, label: joint.flatten() if len(v) == len(places) else exact  # type: ignore[method-assign]
    log_q = model.log_probabilities(x)
    expected = (log_q.exp() * (joint - log_q)).sum(1)
    torch.testing.assert_close(model.log_prob(x), expected)
    assert (expected <= joint.logsumexp(1)).all()
    model.weight = 3.0
    torch.testing.assert_close(model.loss(x, y), -(exact + 3 * log_q.gather(1, y[:, None])[:, 0]).mean())
    torch.testing.assert_close(model.loss(x, y * 0 - 1), -expected.mean())


def integrated(log_joint: Tensor, step: float) -> Tensor:
    """``log`` of the integral over a square grid, from the last two axes."""
    return torch.logsumexp(log_joint.flatten(-2), -1) + 2 * math.log(step)


GRID = torch.linspace(-8, 8, 321, dtype=torch.float64)
PLANE = torch.stack(torch.meshgrid(GRID, GRID, indexing="ij"), -1)
STEP = 16 / 320


def log_likelihood(net: nn.Module, x: Tensor) -> Tensor:
    mean = net(PLANE)
    return torch.distributions.Normal(mean, NOISE).log_prob(x[:, None, None]).sum(-1)


def test_ccvae_bounds_the_integrated_likelihood() -> None:
    torch.manual_seed(2)
    net = nn.Linear(2, 3)
    model = CCVAE(nn.Linear(3, 4), net, 3, 2, latent=1, style=1, likelihood=Gaussian(NOISE), samples=2000).double()
    x = torch.randn(3, 3, dtype=torch.float64)
    mean, log_scale = model._prior()
    prior_c = torch.stack(
        [torch.distributions.Normal(m, s.exp()).log_prob(PLANE[..., 0]) for m, s in zip(mean, log_scale, strict=True)]
    )
    prior_s = torch.distributions.Normal(0.0, 1.0).log_prob(PLANE[..., 1])
    joint = integrated(log_likelihood(net, x)[:, None] + prior_c + prior_s, STEP) - math.log(2)
    y = torch.tensor([0, 1, 1])
    with torch.no_grad():
        labelled = torch.stack([model.labelled_bound(x, y) for _ in range(300)])
        free = torch.stack([model.log_prob(x) for _ in range(2000)])
        error = labelled.std(0) / 300**0.5
        assert (labelled.mean(0) <= joint.gather(1, y[:, None])[:, 0] + 4 * error).all()
        assert (free.mean(0) <= joint.logsumexp(1) + 4 * free.std(0) / 2000**0.5).all()
    optimizer = torch.optim.Adam([*model.encoder.parameters(), *model.classifier.parameters()], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (-model.log_prob(x).sum()).backward()
        optimizer.step()
    with torch.no_grad():
        better = torch.stack([model.log_prob(x) for _ in range(2000)]).mean(0)
    assert ((joint.logsumexp(1) - better) < 0.5 * (joint.logsumexp(1) - free.mean(0))).all()


def test_ccvaes_weight_carries_no_gradient_to_the_latents() -> None:
    torch.manual_seed(0)
    model = CCVAE(nn.Linear(3, 6), nn.Linear(3, 3), 3, 2, latent=2, style=1, likelihood=Gaussian(1.0), samples=1)
    seen: list[Tensor] = []
    inner = model._of_drawn
    model._of_drawn = lambda z: seen.append(z) or inner(z)  # type: ignore[method-assign]
    model.labelled_bound(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
    assert [z.requires_grad for z in seen] == [True, True, False]


def test_diva_bounds_the_integrated_likelihood() -> None:
    torch.manual_seed(3)
    model = DIVA(3, 2, latent=1, hidden=(6,), likelihood=Gaussian(NOISE), weight=0.0).double()
    x = torch.randn(3, 3, dtype=torch.float64)
    prior = model.of_class.prior_of(torch.arange(2), x)
    prior_y = torch.stack(
        [torch.distributions.Normal(m, s.exp()).log_prob(PLANE[..., 0]) for m, s in zip(*prior, strict=True)]
    )
    prior_x = torch.distributions.Normal(0.0, 1.0).log_prob(PLANE[..., 1])
    given_y = integrated(log_likelihood(model.decoder, x)[:, None] + prior_y + prior_x, STEP)
    y = torch.tensor([0, 1, 1])
    with torch.no_grad():
        for bound, exact in (
            (lambda: model.labelled_bound(x, y), given_y.gather(1, y[:, None])[:, 0]),
            (lambda: model.log_prob(x), (given_y - math.log(2)).logsumexp(1)),
        ):
            draws = torch.stack([bound() for _ in range(1500)])
            assert (draws.mean(0) <= exact + 4 * draws.std(0) / 1500**0.5).all()


def test_divas_domains_enter_where_they_are_known() -> None:
    torch.manual_seed(0)
    model = DIVA(6, 3, domains=2, latent=4, hidden=(8,))
    x, y, d = torch.rand(5, 6), torch.tensor([0, -1, 2, 1, -1]), torch.tensor([0, 1, 0, 1, 1])
    model.loss(x, y, d).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with pytest.raises(ValueError, match="got label 2"):
        model.loss(x, y, d + 1)
    with pytest.raises(ValueError, match="d: got domains, expected None"):
        DIVA(6, 3, latent=4, hidden=(8,)).loss(x, y, d)


def models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    likelihood = Gaussian()
    first = VAE(nn.Linear(2, 4), nn.Linear(2, 4), 2, likelihood=likelihood)
    with torch.no_grad():
        first.encoder.weight[:2] = torch.eye(2)
    net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 4))
    return {
        "m2": M2(2, 2, latent=2, hidden=(32,), likelihood=likelihood, weight=20.0),
        "m1m2": M1M2(first, torch.randn(50, 2), 2, latent=2, hidden=(32,), weight=20.0),
        "ccvae": CCVAE(
            nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 8)),
            net,
            2,
            2,
            latent=2,
            style=2,
            likelihood=likelihood,
        ),
        "diva": DIVA(2, 2, latent=2, hidden=(32,), likelihood=likelihood, weight=20.0),
    }


@pytest.mark.parametrize("name", ["m2", "m1m2", "ccvae", "diva"])
def test_few_labels_are_enough_for_two_clusters(name: str) -> None:
    model = models()[name]
    torch.manual_seed(1)
    truth = torch.arange(200) % 2
    x = 0.5 * torch.randn(200, 2) + torch.tensor([[-1.5, 0.0], [1.5, 0.0]])[truth]
    y = torch.where(torch.arange(200) < 6, truth, -1)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    first = model.loss(x, y).item()
    for _ in range(150):
        optimizer.zero_grad()
        loss = model.loss(x, y)
        loss.backward()
        optimizer.step()
    assert loss.item() < first
    assert (model.predict(x) == truth).double().mean() >= 0.95
    out = model(x)
    assert out.log_px.shape == (200,) and model.log_px_is_bound
    torch.testing.assert_close(model.predict_proba(x).sum(1), torch.ones(200))
    assert model.sample(5).shape == (5, 2) and model.sample_of_class(1, 3).shape == (3, 2)
    unlabelled = torch.full((200,), -1)
    assert torch.isfinite(model.loss(x, unlabelled)) and torch.isfinite(model.loss(x[:0], unlabelled[:0]))
    with pytest.raises(ValueError, match="got label 2"):
        model.loss(x, truth + 1)


OBJECTIVES = [
    objectives.Joint(),
    objectives.Weighted(0.5, per_dimension=True),
    objectives.Convex(0.3),
    objectives.Separate(),
    objectives.SemiSupervised(objectives.Joint()),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_hybrid_vae_takes_every_objective(objective: objectives.Objective) -> None:
    torch.manual_seed(0)
    model = HybridVAE(nn.Linear(6, 4), nn.Linear(2, 6), heads.Categorical(2, classes=3))
    x, y = torch.rand(5, 6), torch.tensor([0, 1, 2, 0, 1])
    torch.manual_seed(1)
    latents = model.flow.run(x)
    assert latents.dim == 6 and latents.z.shape == (5, 2)
    torch.manual_seed(1)
    found = model.loss(x, y, objective)
    log_py = model.head.log_prob(model.head(latents.z), y)
    torch.testing.assert_close(found, objective(log_py, latents.log_px, 6).mean())
    found.backward()
    assert torch.equal(model.predict_proba(x), model.predict_proba(x)), "of the mean, which is not drawn"
    assert model.log_px_is_bound and model.sample(3).shape == (3, 6)


def test_likelihoods_are_those_of_scipy() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-3, 4, (4, 3), generator=generator).double()
    params = torch.randn(4, 6, dtype=torch.float64, generator=generator)
    mean, log_scale = (p.numpy() for p in params.chunk(2, 1))
    scale = np.exp(log_scale)
    cdf = [stats.logistic(mean, scale).cdf(x.numpy() * 0.5 + side * 0.25) for side in (1, -1)]
    torch.testing.assert_close(Logistic(0.5).log_prob(params, 0.5 * x), torch.from_numpy(cdf[0] - cdf[1]).log().sum(1))
    gaussian = stats.norm(mean, scale).logpdf(x.numpy()).sum(1)
    torch.testing.assert_close(Gaussian().log_prob(params, x), torch.from_numpy(gaussian))
    p = torch.sigmoid(params[:, :3])
    bits = (x > 0).double()
    torch.testing.assert_close(
        Bernoulli().log_prob(params[:, :3], bits), (bits * p.log() + (1 - bits) * (1 - p).log()).sum(1)
    )
    one = torch.cat((torch.zeros(4, 3, dtype=torch.float64), params), 1)
    torch.testing.assert_close(LogisticMixture(1).log_prob(one, x), Logistic().log_prob(params, x))
    for likelihood in (Logistic(0.5), LogisticMixture(2, 0.5), Gaussian(0.1), Bernoulli()):
        numbers = torch.zeros(2000, likelihood.outputs * 3)
        drawn = likelihood.sample(numbers, generator=generator)
        assert drawn.shape == (2000, 3)
        # 2000 draws of deviation up to 1.8 (a logistic): the mean is known to 0.04
        torch.testing.assert_close(drawn.mean(0), likelihood.mean(numbers)[0], rtol=0, atol=0.15)


def test_bad_input_is_named() -> None:
    model = VAE(nn.Linear(6, 4), nn.Linear(2, 6), 2)
    with pytest.raises(ValueError, match="x: got values from 0 to 2, expected 0 to 1 for the Bernoulli"):
        model.log_prob(torch.tensor([[0.0, 2, 0, 0, 0, 0]]))
    with pytest.raises(ValueError, match=r"decoder: gave shape \(1, 6\), expected \(1, 12\): 2 numbers"):
        VAE(nn.Linear(6, 4), nn.Linear(2, 6), 2, likelihood="gaussian").log_prob(torch.zeros(1, 6))
    with pytest.raises(ValueError, match=r"encoder: gave \(1, 5\), expected \(B, 4\): means and log-scales"):
        VAE(nn.Linear(6, 5), nn.Linear(2, 6), 2).log_prob(torch.zeros(1, 6))
    with pytest.raises(ValueError, match="likelihood: got 'poisson', expected one of 'bernoulli'"):
        VAE(nn.Linear(6, 4), nn.Linear(2, 6), 2, likelihood="poisson")
    with pytest.raises(TypeError, match=r"encoder: got 3, expected an nn\.Module"):
        VAE(3, nn.Linear(2, 6), 2)  # type: ignore[arg-type]


def test_m2_sums_over_the_class_in_one_pass_as_class_by_class() -> None:
    """The encoder's first layer sees a row once, but where somebody watches it or replaced the bound."""
    torch.manual_seed(0)
    model = M2(DIM, 3, latent=2, hidden=(7, 5)).double()
    x = torch.rand(6, DIM, dtype=torch.float64)

    def gradients() -> list[Tensor]:
        torch.manual_seed(1)
        value = model.log_prob(x)
        return [value, *torch.autograd.grad(value.sum(), list(model.parameters()))]

    seen: list[int] = []
    plain = gradients()
    with model.encoder[0].register_forward_pre_hook(lambda _, args: seen.append(len(args[0]))):
        torch.testing.assert_close(gradients(), plain)
    assert seen == [18]
    model.bound_of = lambda v, y: v.sum(1) + y  # type: ignore[method-assign]
    log_q = model.log_probabilities(x)
    expected = (log_q.exp() * (x.sum(1)[:, None] + torch.arange(3) - log_q)).sum(1)
    torch.testing.assert_close(model.log_prob(x), expected)


def test_m2_takes_a_classifier() -> None:
    classifier = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2), nn.Flatten())
    model = M2(4, 3, latent=2, hidden=(7,), classifier=classifier)
    x = torch.rand(6, 1, 2, 2)
    torch.testing.assert_close(model.log_probabilities(x), classifier(x.flatten(1)).log_softmax(1))
    model.loss(x, torch.tensor([0, 1, 2, -1, -1, -1])).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with pytest.raises(TypeError, match="classifier: got 3, expected a module or None"):
        M2(4, 3, classifier=3)  # type: ignore[arg-type]
    wrong = M2(4, 5, classifier=nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"classifier: gave \(6, 3\), expected \(B, 5\)"):
        wrong.log_prob(x)


def test_m1m2_may_classify_the_data_itself() -> None:
    torch.manual_seed(0)
    first = VAE(nn.Linear(6, 8), nn.Linear(4, 6), 4)
    classifier = nn.Linear(6, 3)
    model = M1M2(first, 9 * torch.rand(20, 6), 3, latent=2, hidden=(8,), classifier=classifier)
    x, y = torch.rand(5, 6), torch.tensor([0, 1, 2, 0, 1])
    log_q = classifier(x).log_softmax(1)
    torch.testing.assert_close(model.log_probabilities(x), log_q)
    model.second.bound_of = lambda z, label: label + 0.5 * len(z)  # type: ignore[method-assign]
    bounds = torch.arange(3) + 7.5
    torch.testing.assert_close(model.log_prob(x), (log_q.exp() * (bounds - log_q)).sum(1))
    own = y + 2.5 + log_q.gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(model.labelled_bound(x, y), own)
    del model.second.bound_of
    model.loss(x, torch.tensor([0, 1, -1, -1, -1])).backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if not name.startswith("first."))
    assert model.features(x).shape == (5, 2)
