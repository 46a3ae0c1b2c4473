"""Selective classification, and reading p(y|x) on samples."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from hybridkern import flows
from hybridkern.distributions import Distribution
from hybridkern.hybrid import HybridModel, SelectiveClassifier, heads
from hybridkern.hybrid.vae import HybridVAE


def _model(head: heads.Head | None = None) -> HybridModel:
    torch.manual_seed(0)
    head = head or heads.Categorical(2, 3, hidden=(8,), dropout=0.5)
    model = HybridModel(flows.RealNVP(2, layers=2, hidden=8), head)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def _loader(unlabelled: bool = False) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(20, 2, generator=generator)
    y = torch.tensor([0] * 10 + [1] * 6 + [2] * 4)
    if unlabelled:
        y[:5] = -1
    return list(zip(x.split(8), y.split(8), strict=True))


@pytest.mark.parametrize("slack", [0.0, 1.5, -0.5])
def test_threshold_and_fallback(slack: float) -> None:
    """Equations 9 and 10: p(y|x) where log p(x) reaches the lowest of the training data less the slack, else p(y)."""
    model, loader = _model(), _loader()
    selective = SelectiveClassifier(model, slack).fit(loader)
    model.eval()
    x = torch.cat([part for part, _ in loader])
    log_px = model.log_prob(x).detach()
    assert selective.threshold.item() == pytest.approx(log_px.min().item() - slack, rel=1e-6)
    assert selective.class_prior.tolist() == [0.5, 0.3, 0.2]
    assert bool(selective.accepts(x).all()) == (slack >= 0), "no training example is rejected without a negative slack"
    new = torch.cat([x, 100 * x])
    accepted = model.log_prob(new) >= selective.threshold
    assert accepted.any() and not accepted.all()
    p = selective.predict_proba(new)
    assert torch.equal(p[accepted], model.predict_proba(new)[accepted])
    torch.testing.assert_close(p[~accepted], torch.tensor([[0.5, 0.3, 0.2]]).expand(int((~accepted).sum()), 3))
    assert torch.equal(selective(new), p) and not p.requires_grad
    labels = selective.predict(new)
    assert torch.equal(labels == -1, ~accepted) and torch.equal(labels[accepted], model.predict(new)[accepted])


def test_a_training_example_is_accepted_in_any_batch() -> None:
    """Rounding, which depends on the size of a batch, rejects none; what is lower by more than that is rejected."""
    x, y = torch.randn(100, 20, generator=torch.Generator().manual_seed(0)), torch.arange(100) % 2
    for seed in range(8):
        torch.manual_seed(seed)
        model = HybridModel(flows.RealNVP(20, layers=4, hidden=64), heads.Categorical(20, 2)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        selective = SelectiveClassifier(model).fit([(x, y)])
        for size in (1, 3, 7, 32):
            assert all((selective.predict(part) >= 0).all() for part in x.split(size))
            assert all(selective.accepts(part).all() for part in x.split(size))
        lowest = x[model.log_prob(x).argmin()][None]
        selective.threshold += 0.01
        assert selective.predict(lowest).item() == -1 and not selective.accepts(lowest)
        assert torch.equal(selective.predict_proba(lowest)[0].double(), selective.class_prior)


def test_unlabelled_rows_count_for_the_threshold_only() -> None:
    model = _model()
    some, every = SelectiveClassifier(model).fit(_loader(True)), SelectiveClassifier(model).fit(_loader())
    assert some.threshold == every.threshold
    torch.testing.assert_close(some.class_prior, torch.tensor([5, 6, 4], dtype=torch.float64) / 15)


def test_runs_in_evaluation_mode_and_leaves_the_modes_as_they_were() -> None:
    model = _model().train()
    model.flow.eval()
    selective = SelectiveClassifier(model).fit(_loader())
    x = _loader()[0][0]
    assert torch.equal(selective.predict_proba(x), selective.predict_proba(x)), "no dropout"
    assert model.training and model.head.training and not model.flow.training


def test_state_is_saved() -> None:
    selective = SelectiveClassifier(_model()).fit(_loader())
    other = SelectiveClassifier(_model())
    other.load_state_dict(selective.state_dict())
    x = 3 * torch.cat([part for part, _ in _loader()])
    assert torch.equal(other.predict_proba(x), selective.predict_proba(x))


def test_infinite_slack_accepts_everything_and_nan_is_rejected() -> None:
    selective = SelectiveClassifier(_model(), math.inf).fit(_loader())
    x = torch.tensor([[1e8, 0.0], [math.nan, 0.0]])
    assert selective.accepts(x).tolist() == [True, False]
    torch.testing.assert_close(selective.predict_proba(x)[1], selective.class_prior.float())


def test_coverage_risk() -> None:
    model, loader = _model().eval(), _loader(True)
    curve = SelectiveClassifier(model).coverage_risk(loader)
    x, y = (torch.cat(parts) for parts in zip(*loader, strict=True))
    order = model.log_prob(x).argsort(descending=True)
    wrong = (model.predict(x) != y)[order].double()
    expected = wrong.cumsum(0) / torch.arange(1, 21)
    torch.testing.assert_close(curve.risk, expected)
    assert curve.coverage[-1] == 1


def test_with_a_bayesian_head() -> None:
    model = _model(heads.BayesianLogistic(2))
    loader = [(x, y.clamp(max=1)) for x, y in _loader()]
    p = SelectiveClassifier(model).fit(loader).predict_proba(100 * loader[0][0])
    assert p.shape == (8, 2)


def _fit(*batches: tuple[Tensor, Tensor]) -> SelectiveClassifier:
    return SelectiveClassifier(_model()).fit(batches)


X = torch.zeros(2, 2)
BAD = [
    (lambda: SelectiveClassifier(_model(heads.Gaussian(2))), TypeError, "got a head Gaussian, expected a classifier"),
    (lambda: SelectiveClassifier(_model(), math.nan), ValueError, "slack: got nan"),
    (lambda: SelectiveClassifier(_model()).predict_proba(X), RuntimeError, r"not fitted; call fit\(loader\)"),
    (lambda: SelectiveClassifier(_model()).accepts(X), RuntimeError, "not fitted"),
    (lambda: _fit(), ValueError, "loader: got no labelled example"),
    (lambda: _fit((X, torch.tensor([-1, -1]))), ValueError, "loader: got no labelled example"),
    (lambda: _fit((X, torch.tensor([0, 3]))), ValueError, "y: got label 3, expected 0 to 2"),
    (lambda: _fit((X, torch.tensor([0, -7]))), ValueError, "y: got label -7"),
    (lambda: _fit((X * math.nan, torch.tensor([0, 1]))), ValueError, "log p.x. of row 0 of a batch is nan"),
    (lambda: _model().sample_of_class(3, 1), ValueError, r"label: got 3, expected 0 to 2 \(3 classes\)"),
    (lambda: _model(heads.Gaussian(2)).sample_of_class(0, 1), TypeError, "head: got Gaussian, expected a classifier"),
    (lambda: _model(heads.Gaussian(2)).predict_proba(X), TypeError, "head: got Gaussian, expected a classifier"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_arguments(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("flow", ["realnvp", "planar", "idf"])
def test_samples_with_what_the_head_says_of_them(flow: str) -> None:
    torch.manual_seed(0)
    build = {"realnvp": lambda: flows.RealNVP(2, layers=2, hidden=8), "planar": lambda: flows.Planar(2)}
    flow_of = build.get(flow, lambda: flows.IDF(2, layers=1, parts=2, hidden=4))()
    for head in (heads.Categorical(2, 3), heads.Gaussian(2)):
        model = HybridModel(flow_of, head).eval()
        sample = model.sample_with_prediction(5, generator=torch.Generator().manual_seed(0))
        assert torch.equal(sample.x, model.sample(5, generator=torch.Generator().manual_seed(0)))
        torch.testing.assert_close(sample.log_px, model.log_prob(sample.x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(sample.prediction, model(sample.x).prediction, rtol=1e-4, atol=1e-4)
        assert not sample.prediction.requires_grad


def test_interpolation_through_a_numerical_inverse() -> None:
    torch.manual_seed(0)
    model = HybridModel(flows.Planar(2), heads.Gaussian(2))
    x = torch.randn(6, 2)
    path = model.interpolate(x[:3], x[3:], 4)
    torch.testing.assert_close(path[0], x[:3], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(path[-1], x[3:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_of_a_class_follow_bayes_rule(temperature: float) -> None:
    """``p(z|y)`` in one dimension, by its mean: the integral of ``z p(y|z) p(z)`` over that of ``p(y|z) p(z)``."""
    head = heads.Categorical(1, 2)
    with torch.no_grad():
        head.net[0].weight.copy_(torch.tensor([[0.0], [2.0]]))
        head.net[0].bias.copy_(torch.tensor([0.0, -2.0]))
    flow = flows.Planar(1, layers=1)
    with torch.no_grad():
        flow.maps[0].u.zero_()
    model = HybridModel(flow, head)
    z = torch.linspace(-10, 10, 100_001, dtype=torch.float64)
    weight = torch.sigmoid(2 * z - 2) * torch.exp(-(z / temperature).square() / 2)
    mean = (z * weight).sum() / weight.sum()
    generator = torch.Generator().manual_seed(0)
    sample = model.sample_of_class(1, 20_000, temperature=temperature, generator=generator)
    assert sample.shape == (20_000, 1)
    assert sample.mean().item() == pytest.approx(mean.item(), abs=0.03)
    assert model.sample_of_class(1, 0).shape == (0, 1)
    with torch.no_grad():
        head.net[0].bias.copy_(torch.tensor([0.0, -200.0]))
    with pytest.raises(ValueError, match=r"class 1 is too rare under the model: 0 of 2000 draws"):
        model.sample_of_class(1, 2)


def test_a_base_without_temperature_says_so() -> None:
    class Plain(Distribution):
        dtype = torch.float32

        def sample(self, n: int, *, generator: torch.Generator | None = None) -> torch.Tensor:
            return torch.zeros(n, 2)

        def log_prob(self, x: torch.Tensor) -> torch.Tensor:
            return x.new_zeros(len(x))

    model = _model()
    model.flow.base = Plain(2)
    assert model.sample(3).shape == (3, 2)
    for draw in (model.sample, partial(model.sample_of_class, 1)):
        with pytest.raises(TypeError, match=r"temperature: got 0\.5, expected 1: Plain\.sample takes none"):
            draw(3, temperature=0.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_threshold_stays_in_float64(dtype: torch.dtype) -> None:
    """In float16 a threshold below -65504 would be minus infinity, which accepts everything."""
    selective = SelectiveClassifier(_model()).fit(_loader())
    selective.threshold.fill_(-70001.5)
    prior = selective.class_prior.clone()
    selective.to(dtype)
    assert selective.threshold.dtype is torch.float64 and selective.threshold.item() == -70001.5
    assert torch.equal(selective.class_prior, prior)
    assert next(selective.model.parameters()).dtype is dtype
    assert {"threshold", "class_prior"} <= set(selective.state_dict())


def test_made_on_meta() -> None:
    with torch.device("meta"):
        selective = SelectiveClassifier(_model())
    selective.to_empty(device="cpu")
    assert selective.threshold.dtype is torch.float64 and selective.class_prior.shape == (3,)


def test_an_autoencoder_predicts_from_the_mean_of_its_latents() -> None:
    torch.manual_seed(0)
    model = HybridVAE(nn.Linear(2, 4), nn.Linear(2, 4), heads.Categorical(2, 3), likelihood="gaussian").eval()
    selective, x = SelectiveClassifier(model, slack=math.inf).fit(_loader()), torch.randn(50, 2)
    assert torch.equal(selective.predict(x), model.predict(x))
    torch.testing.assert_close(selective.predict_proba(x), model.predict_proba(x))
