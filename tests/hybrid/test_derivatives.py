"""Heads, evidence, integrals, scores and objectives under every way PyTorch differentiates, and under ``vmap``."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, stack_module_state, vmap

from hybridkern import distributions, flows
from hybridkern.hybrid import HybridModel, heads, objectives, scores
from hybridkern.hybrid._logistic_normal import expected_log_sigmoid, log_expected_sigmoid
from tests._derivatives import F64, check_all, check_first, check_second, check_vmap, close, flat, of_module

ROWS, DIM = 3, 2


pytestmark = pytest.mark.usefixtures("reference_backend")


def _normal(*shape: int, seed: int = 0, scale: float = 0.8) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed + 10 * sum(shape)), dtype=F64)


def _shaken(module: nn.Module) -> nn.Module:
    """In float64, and no parameter where it starts."""
    module.double()
    with torch.no_grad():
        for index, value in enumerate(module.parameters()):
            value += 0.3 * _normal(*value.shape, seed=index)
    return module


LABELS = torch.tensor([0, 1, 1])
TARGETS = _normal(ROWS, seed=4)
SILU = {"activation": nn.SiLU}


def _bayesian_linear(**options: bool) -> heads.BayesianLinear:
    return heads.BayesianLinear(DIM, 0.7, 0.5, trainable=True, **options).observe(_normal(7, DIM), _normal(7))


KNOWN = _bayesian_linear()
HEADS = {
    "categorical": lambda: (heads.Categorical(DIM, 3), LABELS),
    "categorical, hidden": lambda: (heads.Categorical(DIM, 2, hidden=(3,), **SILU), LABELS),
    "gaussian": lambda: (heads.Gaussian(DIM, hidden=(3,), **SILU), TARGETS),
    "gaussian, noise by input": lambda: (heads.Gaussian(DIM, noise="input"), TARGETS),
    "bayesian linear": lambda: (_bayesian_linear(), TARGETS),
    "bayesian linear, bias": lambda: (_bayesian_linear(bias=True), TARGETS),
    "bayesian logistic": lambda: (heads.BayesianLogistic(DIM, rows=5, bias=True), LABELS),
    "bayesian logistic, diagonal": lambda: (heads.BayesianLogistic(DIM, covariance="diagonal"), LABELS),
}


@pytest.mark.parametrize("name", HEADS)
def test_head(name: str) -> None:
    head, y = HEADS[name]()
    _shaken(head)

    def everything(z: Tensor) -> list[Tensor]:
        prediction = head(z)
        out = [prediction, head.log_prob(prediction, y), head.log_likelihood(z, y)]
        if isinstance(head, heads.Classifier):
            return [*out, head.probabilities(prediction), head.entropy(prediction)]
        return [*out, head.mean(prediction), head.std(prediction)]

    check_all(*of_module(head, everything, _normal(ROWS, DIM)))


@pytest.mark.parametrize("rows", [1, 4])
def test_evidence(rows: int) -> None:
    """By the rows where they are fewer than the features, else by the features; and of what was observed."""
    head = _shaken(_bayesian_linear(bias=True))

    def evidence(z: Tensor, y: Tensor) -> list[Tensor]:
        return [head.log_evidence(z, y), head.observed_log_evidence()]

    check_all(*of_module(head, evidence, _normal(rows, DIM), _normal(rows, seed=1)))


def test_a_bayesian_head_at_latents_of_zero() -> None:
    """There the logit is certain, and its deviation has a kink; the likelihood has none."""
    head = _shaken(heads.BayesianLogistic(DIM))

    def likelihoods(z: Tensor) -> list[Tensor]:
        return [head.log_likelihood(z, LABELS[:1]), head.log_probabilities(head(z))]

    function, at = flat(likelihoods, [torch.zeros(1, DIM, dtype=F64)])
    check_first(function, at)
    check_second(function, at)


POINTS = [(0.0, 0.0), (0.7, 1e-3), (-3.0, 1.9), (1.0, 2.0), (-2.0, 2.0), (-0.5, 2.0), (4.0, 30.0), (-450.0, 30.0)]


@pytest.mark.parametrize("function", [log_expected_sigmoid, expected_log_sigmoid])
def test_integrals(function) -> None:
    """On both sides of a deviation of 2 and at it; where both ways to write the integral are equally good."""
    mean, std = (torch.tensor(column, dtype=F64) for column in zip(*POINTS, strict=True))
    check_all(lambda mean, std: [function(mean, std + 3e-5)], [mean, std])
    at_the_bound = torch.tensor([2.0], dtype=F64)
    for value in (-2.0, 1.0):
        check_first(*flat(lambda m, s: [function(m, s)], [torch.tensor([value], dtype=F64), at_the_bound]))
        check_second(*flat(lambda m, s: [function(m, s)], [torch.tensor([value], dtype=F64), at_the_bound]))


DISTRIBUTIONS = {
    "gaussian": lambda: distributions.DiagonalGaussian(DIM, trainable=True),
    "logistic": lambda: distributions.DiscretizedLogistic(DIM),
    "mixture": lambda: distributions.DiscretizedLogisticMixture(DIM, 3),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distribution(name: str) -> None:
    distribution = _shaken(DISTRIBUTIONS[name]())
    check_all(*of_module(distribution, lambda x: [distribution.log_prob(x)], _normal(ROWS, DIM, scale=2.0)))


def test_scores() -> None:
    check_all(lambda a, b: [scores.likelihood_ratio(a, b)], [_normal(ROWS), _normal(ROWS, seed=1)])
    check_all(lambda a, b: [scores.typicality(a, b)], [_normal(ROWS), _normal(5, seed=1)])
    check_all(lambda a: [scores.complexity_corrected(a, torch.arange(3.0))], [_normal(ROWS)])


OBJECTIVES = {
    "weighted": objectives.Weighted(0.5),
    "jacobian": objectives.JacobianWeighted(0.3),
    "semi-supervised": objectives.SemiSupervised(objectives.Convex(0.4), 0.7),
}


def _model() -> HybridModel:
    flow = flows.RealNVP(DIM, layers=2, hidden=(3,), activation=nn.SiLU)
    return _shaken(HybridModel(flow, heads.Categorical(DIM, 2)))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_of_a_model(name: str) -> None:
    model, y = _model(), torch.tensor([0, 1, -1 if name == "semi-supervised" else 1])
    loss = [lambda x: [model.loss(x, y, OBJECTIVES[name])], _normal(ROWS, DIM)]
    function, arguments = of_module(model, *loss)
    check_vmap(function, arguments)
    check_first(*flat(function, arguments))
    check_second(*flat(loss[0], loss[1:]))  # in the data


def test_gradients_of_each_example_with_its_label() -> None:
    model = _model()
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    x, y = _normal(ROWS, DIM), torch.tensor([0, -1, 1])
    semi = objectives.SemiSupervised(objectives.Joint(), 0.5)

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return model.loss(x[None], y[None], semi)

    named = {f"model.{name}": value for name, value in parameters.items()}
    got = vmap(grad(lambda p, x, y: torch.func.functional_call(Loss(), p, (x, y))), (None, 0, 0))(named, x, y)
    for row in range(ROWS):
        model.zero_grad()
        model.loss(x[row : row + 1], y[row : row + 1], semi).backward()
        for name, value in model.named_parameters():
            expected = torch.zeros_like(value) if value.grad is None else value.grad
            close(got[f"model.{name}"][row], expected, 1e-12)


@pytest.mark.parametrize("name", HEADS)
def test_ensemble_of_heads(name: str) -> None:
    """``stack_module_state``: buffers are batched too."""
    members = [_shaken(HEADS[name]()[0]) for _ in range(2)]
    with torch.no_grad():
        for value in members[1].parameters():
            value.mul_(1.5)
    z = _normal(ROWS, DIM)
    parameters, buffers = stack_module_state(members)
    got = vmap(lambda p, b: torch.func.functional_call(members[0], (p, b), (z,)))(parameters, buffers)
    close(got, torch.stack([head(z) for head in members]).detach(), 1e-12)


def test_what_no_error_can_say_under_vmap_is_nan() -> None:
    """A singular design; a latent and a target that are no numbers."""
    head = heads.BayesianLinear(DIM, 1e-30, 1.0)
    z, y = torch.ones(2, 4, DIM, dtype=F64), torch.zeros(2, 4, dtype=F64)
    z[1] = _normal(4, DIM)
    got = vmap(head.log_evidence)(z, y)
    assert got.isnan().tolist() == [True, False]
    with pytest.raises(ValueError, match="singular"):
        head.log_evidence(z[0], y[0])
    proper = heads.BayesianLinear(DIM)
    z[0, 0, 0] = torch.nan
    assert vmap(proper.log_evidence)(z, y).isnan().tolist() == [True, False]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda z: heads.BayesianLogistic(DIM).laplace(z, torch.tensor([0, 1, 1])), "BayesianLogistic.laplace"),
        (lambda z: heads.BayesianLinear(DIM).observe(z, TARGETS).gram, "BayesianLinear.observe"),
        (lambda z: KNOWN.maximize_evidence() * z, "BayesianLinear.maximize_evidence"),
    ],
)
def test_what_cannot_run_under_vmap_says_so(call, name: str) -> None:
    with pytest.raises(RuntimeError, match=f"{name}: cannot run under torch.func.vmap.*one call"):
        vmap(call)(_normal(2, ROWS, DIM))
