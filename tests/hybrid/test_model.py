"""``HybridModel``: one pass, consistent log-probabilities, objectives, interpolation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hybridkern import flows
from hybridkern.hybrid import HybridModel, HybridOutput, heads, metrics, objectives

pytestmark = pytest.mark.usefixtures("backend")
FLOWS = {"realnvp": lambda: flows.RealNVP(4, layers=2, hidden=8), "idf": lambda: flows.IDF(4, layers=2, hidden=8)}
every_flow = pytest.mark.parametrize("name", FLOWS)


def _model(name: str, **options: object) -> HybridModel:
    torch.manual_seed(0)
    model = HybridModel(FLOWS[name](), heads.Categorical(4, 3, **options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


def _batch(n: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 9, (n, 4), generator=generator).float(), torch.arange(n) % 3


@every_flow
def test_one_pass_gives_everything(name: str) -> None:
    model = _model(name, hidden=(8,))
    x, _ = _batch()
    calls = []
    model.flow.register_forward_hook(lambda *_: calls.append(1))
    out = model(x)
    assert isinstance(out, HybridOutput) and len(calls) == 1
    assert torch.equal(out.z, model.flow(x)[0])
    assert torch.equal(out.log_px, model.flow.log_prob(x)) and torch.equal(out.log_px, model.log_prob(x))
    assert torch.equal(out.prediction, model.head(out.z)) and out.prediction.shape == (6, 3)


@every_flow
def test_log_joint_is_a_sum_over_labels_away_from_the_marginal(name: str) -> None:
    model = _model(name)
    x, _ = _batch()
    joint = torch.stack([model.log_joint(x, torch.full((6,), label)) for label in range(3)])
    torch.testing.assert_close(joint.logsumexp(0), model.log_prob(x), rtol=1e-5, atol=1e-5)
    assert torch.equal(model.predict(x), joint.argmax(0))
    assert model.predict(x).dtype == torch.int64 and not model.predict(x).requires_grad


OBJECTIVES = [
    (objectives.Joint(), 1.0, 1.0),
    (objectives.Weighted(0.5), 1.0, 0.5),
    (objectives.Weighted(0.0), 1.0, 0.0),
    (objectives.Weighted(2.0, per_dimension=True), 1.0, 2.0 / 4),
    (objectives.Convex(0.25), 0.75, 0.25),
    (objectives.Convex(1.0), 0.0, 1.0),
]


@pytest.mark.parametrize(("objective", "label_weight", "data_weight"), OBJECTIVES)
def test_objectives(objective: objectives.Objective, label_weight: float, data_weight: float) -> None:
    model = _model("idf")
    x, y = _batch()
    _, log_px, logits = model(x)
    log_py = torch.log_softmax(logits, 1)[torch.arange(6), y]
    expected = -(label_weight * log_py + data_weight * log_px).mean()
    torch.testing.assert_close(model.loss(x, y, objective), expected, rtol=1e-6, atol=1e-6)


@every_flow
def test_loss_trains_flow_and_head(name: str) -> None:
    model = _model(name, hidden=(8,)).train()
    x, y = _batch(32)
    model.loss(x, y, objectives.Weighted(1.0, per_dimension=True)).backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, label


def test_loss_compiles(backend: str) -> None:
    torch.compiler.reset()
    model = _model("idf").train()
    x, y = _batch()
    compiled = torch.compile(lambda x, y: model.loss(x, y, objectives.Joint()), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, y), model.loss(x, y, objectives.Joint()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("label", [-1, -100, 3])
def test_compiled_loss_refuses_labels_out_of_range(label: int) -> None:
    """Where the labels are not looked at first, the operator refuses them: none counts as a loss of zero."""
    torch.compiler.reset()
    head = heads.Categorical(4, 3)
    compiled = torch.compile(head.log_prob, fullgraph=True, backend="aot_eager")
    with pytest.raises(IndexError, match="out of bounds"):
        compiled(torch.zeros(2, 3), torch.tensor([0, label]))


@every_flow
def test_interpolation(name: str) -> None:
    model = _model(name)
    x, _ = _batch()
    path = model.interpolate(x[:3], x[3:], 5)
    assert path.shape == (5, 3, 4) and not path.requires_grad
    torch.testing.assert_close(path[0], x[:3], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(path[-1], x[3:], rtol=1e-5, atol=1e-5)
    middle = (model.flow(x[:3])[0] + model.flow(x[3:])[0]) / 2
    if name == "idf":
        assert torch.equal(path, path.round())
        middle = middle.round()
    torch.testing.assert_close(model.flow(path[2])[0], middle, rtol=1e-4, atol=1e-4)
    assert model.interpolate(x[:0], x[:0], 2).shape == (2, 0, 4)


def test_sample_is_the_flows() -> None:
    model = _model("idf")
    generator = torch.Generator().manual_seed(0)
    sample = model.sample(4, generator=generator)
    assert torch.equal(sample, model.flow.sample(4, generator=generator.manual_seed(0)))


def test_probabilities_and_stable_log() -> None:
    head = heads.Categorical(2, 3)
    logits = torch.tensor([[0.0, 500.0, 1.0]])
    torch.testing.assert_close(head.probabilities(logits), torch.tensor([[0.0, 1.0, 0.0]]))
    assert head.log_prob(logits, torch.tensor([0])).item() == -500.0
    assert head.log_prob(logits.bfloat16(), torch.tensor([0])).dtype == torch.float32
    assert head.log_prob(logits[:0], torch.tensor([], dtype=torch.int64)).shape == (0,)


def test_head_sizes() -> None:
    assert len(list(heads.Categorical(4, 3).net)) == 1
    hidden = heads.Categorical(4, 3, hidden=(5, 6), dropout=0.1, activation=torch.nn.Tanh).net
    assert [type(layer).__name__ for layer in hidden] == ["Linear", "Tanh", "Dropout"] * 2 + ["Linear"]
    assert [layer.out_features for layer in hidden if hasattr(layer, "out_features")] == [5, 6, 3]


def _loss(labels: Tensor) -> Tensor:
    return _model("idf").loss(_batch(2)[0], labels, objectives.Joint())


BAD = [
    (lambda: _loss(torch.tensor([0, 3])), ValueError, r"y: got label 3, expected 0 to 2 \(3 classes\)"),
    (lambda: _loss(torch.tensor([0, -2])), ValueError, "y: got label -2, expected 0 to 2"),
    (lambda: _loss(torch.tensor([0, -100])), ValueError, "y: got label -100, expected 0 to 2"),
    (lambda: _loss(torch.tensor([0, -1])), ValueError, r"y: got label -1 \(unlabelled\), .* labelled examples only"),
    (lambda: _loss(torch.tensor([0.0, 1.0])), TypeError, "y: got torch.float32, expected a tensor of integer labels"),
    (lambda: _loss([0, 1]), TypeError, "y: got list, expected a tensor"),
    (lambda: _loss(torch.tensor([0])), ValueError, r"y: got shape \(1,\), expected \(2,\)"),
    (lambda: HybridModel(FLOWS["idf"](), heads.Categorical(5, 3)), ValueError, "head: got dim 5, expected 4"),
    (lambda: heads.Categorical(4, 1), ValueError, "classes: got 1, expected an integer of at least 2"),
    (lambda: objectives.Weighted(-1.0), ValueError, "lam: got -1.0, expected a finite number of at least 0"),
    (lambda: objectives.Weighted(math.nan), ValueError, "lam: got nan"),
    (lambda: objectives.Convex(1.5), ValueError, "lam: got 1.5, expected a number from 0 to 1"),
    (lambda: _model("idf").interpolate(_batch()[0], _batch()[0], 1), ValueError, "steps: got 1, expected at least 2"),
    (lambda: _model("idf").interpolate(_batch()[0], _batch(1)[0], 2), ValueError, r"x2: got shape \(1, 4\)"),
    (lambda: metrics.bits_per_dim(torch.zeros(1), 0), ValueError, "dim: got 0, expected a positive integer"),
    (lambda: metrics.bits_per_dim(torch.zeros(1), 2, bits=-1), ValueError, "bits: got -1, expected 0 or"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_arguments(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_bits_per_dim_conventions_agree() -> None:
    """A uniform model of 8-bit data costs 8 bits a dimension, in whatever units its likelihood was taken."""
    dim = 12
    of_integers = torch.tensor([-dim * math.log(256)])  # probability 256**-dim
    of_unit_interval = torch.zeros(1)  # density 1 on [0, 1)**dim
    torch.testing.assert_close(metrics.bits_per_dim(of_integers, dim, bits=0), torch.tensor([8.0]))
    torch.testing.assert_close(metrics.bits_per_dim(of_unit_interval, dim), torch.tensor([8.0]))
    assert metrics.bits_per_dim(torch.zeros(3, dtype=torch.float64), dim).dtype == torch.float64
