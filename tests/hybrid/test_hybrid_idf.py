"""``HybridIDF`` against the tutorial's formulas, and what it does better."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import hybridkern
from hybridkern.hybrid import HybridIDF
from tests.hybrid.tutorial import Tutorial, classifier, nets

pytestmark = pytest.mark.usefixtures("backend")
# the last rows: parts of unequal size, whose borders move when the order is reversed
SHAPES = [(8, 1, 2), (8, 1, 3), (8, 4, 2), (8, 4, 1), (2, 1, 2), (7, 1, 3), (7, 4, 2)]
every_shape = pytest.mark.parametrize(("dim", "kinds", "num_flows"), SHAPES)
both = pytest.mark.parametrize("lattice", ["tutorial", "exact"])


def _pair(dim: int, kinds: int, num_flows: int, lattice: str) -> tuple[HybridIDF, Tutorial]:
    """Ours with the state of the tutorial's, all parameters moved from their start."""
    torch.manual_seed(0)
    theirs = Tutorial(dim, kinds, num_flows, alpha=0.25, lattice=lattice)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.4 * torch.randn_like(parameter)
    ours = HybridIDF(nets(dim, kinds), classifier(dim), num_flows, alpha=0.25, D=dim, lattice=lattice)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def _batch(dim: int, n: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 17, (n, dim), generator=generator).float()
    return x, torch.randint(0, 3, (n,), generator=generator)


@both
@every_shape
def test_flow_and_inverse(dim: int, kinds: int, num_flows: int, lattice: str) -> None:
    ours, theirs = _pair(dim, kinds, num_flows, lattice)
    x, _ = _batch(dim)
    z = theirs.f(x)
    assert not torch.equal(z.sort(1).values, x.sort(1).values)
    for model in (ours.train(), ours.eval()):
        torch.testing.assert_close(model.f(x), z, rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(model.f_inv(z), theirs.f_inv(z), rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(model.f_inv(z), x, rtol=1e-6, atol=1e-5)


@both
@every_shape
@pytest.mark.parametrize("reduction", ["avg", "sum"])
def test_loss_and_gradients(dim: int, kinds: int, num_flows: int, lattice: str, reduction: str) -> None:
    ours, theirs = _pair(dim, kinds, num_flows, lattice)
    x, y = _batch(dim)
    mine, other = ours(x, y, reduction), theirs(x, y, reduction)
    torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)
    mine.backward()
    other.backward()
    grads = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        scale = parameter.grad.abs().max().item()
        assert scale > 0, name
        torch.testing.assert_close(grads[name] / scale, parameter.grad / scale, rtol=1e-4, atol=1e-5)


@every_shape
def test_classification(dim: int, kinds: int, num_flows: int) -> None:
    ours, theirs = _pair(dim, kinds, num_flows, "tutorial")
    x, y = _batch(dim)
    probabilities = theirs.probabilities(x)
    assert torch.equal(ours.classify(x), probabilities.argmax(1))
    expected = -probabilities.log().gather(1, y[:, None]).squeeze(1)
    torch.testing.assert_close(ours.class_loss(x, y), expected, rtol=1e-5, atol=1e-5)


def test_state_dict_has_the_tutorials_keys() -> None:
    for kinds in (1, 4):
        theirs = Tutorial(8, kinds, 2, alpha=1.0).state_dict()
        ours = HybridIDF(nets(8, kinds), classifier(8), 2, D=8).state_dict()
        assert {name: value.shape for name, value in ours.items()} == {n: v.shape for n, v in theirs.items()}
        assert ours["beta"].tolist() == [0.0, 0.0] and ours["logscale"].unique().tolist() == [1.0]


def test_tutorial_lattice_is_left_and_the_exact_one_kept() -> None:
    x, _ = _batch(8)
    tutorial, _ = _pair(8, 1, 2, "tutorial")
    exact, _ = _pair(8, 1, 2, "exact")
    z = tutorial.eval().f(x)
    assert (z != z.round()).any(1).all()
    z = exact.eval().f(x)
    assert torch.equal(z, z.round()) and torch.equal(exact.f_inv(z).to(torch.int64), x.to(torch.int64))


def test_prior_is_exact_in_the_tails() -> None:
    model = HybridIDF(nets(2, 1), classifier(2), 1, D=2)
    with torch.no_grad():
        model.logscale.zero_()
    tail = model.log_prior(torch.tensor([[30.0, -30.0]]))
    # far out the logistic's mass in a unit bin is exp(-|x|) * 2 sinh(1/2)
    expected = 2 * (-30 + torch.log(2 * torch.sinh(torch.tensor(0.5))))
    torch.testing.assert_close(tail, expected.expand(1), rtol=1e-6, atol=1e-5)


def test_samples() -> None:
    model, _ = _pair(8, 4, 2, "exact")
    sample = model.eval().sample(5)
    assert sample.shape == (5, 1, 8) and torch.equal(sample, sample.round()) and not sample.requires_grad
    assert model.prior_sample(3, D=2).shape == (3, 8), "D is the model's own"
    assert model.sample(0).shape == (0, 1, 8)
    z = model.prior_sample(3, generator=torch.Generator().manual_seed(4))
    again = model.sample(3, generator=torch.Generator().manual_seed(4))
    assert torch.equal(model.f(again.squeeze(1)), z)


def test_confident_classifier_gives_a_finite_loss() -> None:
    classnet = nn.Sequential(nn.Linear(2, 2), nn.Softmax(dim=1))
    with torch.no_grad():
        classnet[0].weight.copy_(torch.tensor([[300.0, 0.0], [0.0, 0.0]]))
        classnet[0].bias.zero_()
    model = HybridIDF(nets(2, 1), classnet, 1, D=2)
    x = torch.tensor([[0.0, 1.0]])
    loss = model.class_loss(x, torch.tensor([1]))
    torch.testing.assert_close(loss, torch.tensor([300.0]))
    loss.sum().backward()
    assert classnet[0].weight.grad.abs().max() > 0


def test_classifier_that_is_no_sequential_gives_probabilities() -> None:
    class Fixed(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return torch.tensor([[0.25, 0.75]]).expand(len(z), -1)

    model = HybridIDF(nets(2, 1), Fixed(), 1, D=2)
    loss = model.class_loss(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
    torch.testing.assert_close(loss, -torch.tensor([0.25, 0.75, 0.75]).log())


@pytest.mark.parametrize("nested", [False, True])
def test_classifier_that_gives_logarithms(nested: bool) -> None:
    plain = classifier(8)
    logarithms = nn.Sequential(*list(plain)[:-1], nn.LogSoftmax(dim=1))
    x, y = _batch(8)
    losses = []
    for net in (plain, nn.Sequential(logarithms) if nested else logarithms):
        torch.manual_seed(0)
        losses.append(HybridIDF(nets(8, 1), net, 2, D=8).class_loss(x, y))
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("last", [nn.Identity(), nn.Softmax(dim=0), nn.Sigmoid(), nn.Softplus(), nn.ReLU()])
def test_classifier_that_gives_no_probabilities(last: nn.Module) -> None:
    """Their logarithm would be a likelihood of nothing, and for most of them a finite one."""
    model = HybridIDF(nets(8, 1), nn.Sequential(nn.Linear(8, 3), last), 2, D=8)
    for call in (model.class_loss, model):
        with pytest.raises(ValueError, match=r"classnet: got \[.*\] for row \d+, expected class probabilities"):
            call(*_batch(8))


@pytest.mark.parametrize("where", ["softmax", "sequence", "logarithms"])
def test_a_classifier_with_a_forward_of_its_own_is_called(where: str) -> None:
    last = nn.LogSoftmax(dim=1) if where == "logarithms" else nn.Softmax(dim=1)
    net = nn.Sequential(nn.Linear(4, 3), last)
    model = HybridIDF([lambda: nn.Linear(2, 2)], net, 1, D=4)
    shares = torch.tensor([0.25, 0.5, 0.25])
    changed = last if where == "softmax" else net
    changed.forward = lambda z: shares.expand(len(z), -1)
    x = torch.arange(8.0).view(2, 4)
    assert model.classify(x).tolist() == [1, 1]
    torch.testing.assert_close(model.class_loss(x, torch.tensor([0, 1])), -shares[:2].log())


def test_float64() -> None:
    model, _ = _pair(8, 4, 2, "exact")
    x, y = _batch(8)
    loss = model(x, y)
    wide = model.double()(x.double(), y)
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide.float(), loss, rtol=1e-5, atol=1e-5)


def test_whole_loss_compiles(backend: str) -> None:
    torch.compiler.reset()
    for lattice in ("exact", "tutorial"):
        model, _ = _pair(8, 1, 2, lattice)
        x, y = _batch(8)
        model(x, y).backward()
        grads = [parameter.grad.clone() for parameter in model.parameters()]
        model.zero_grad()
        torch.compile(model, fullgraph=True, backend="aot_eager")(x, y).backward()
        for parameter, grad in zip(model.parameters(), grads, strict=True):
            torch.testing.assert_close(parameter.grad, grad, rtol=1e-4, atol=1e-5)


def _model(**options: object) -> HybridIDF:
    return HybridIDF(**{"netts": nets(4, 1), "classnet": classifier(4), "num_flows": 1, "D": 4, **options})


BAD = [
    (lambda: _model(netts=nets(4, 1) * 2), ValueError, "netts: got 2 functions, expected 1 or 4"),
    (lambda: _model(num_flows=0), ValueError, "num_flows: got 0, expected at least 1"),
    (lambda: _model(D=6, netts=nets(4, 4)), ValueError, "D: got 6, expected a number .* into 4 parts"),
    (lambda: _model(lattice="real"), ValueError, "lattice: got 'real', expected 'exact' or 'tutorial'"),
    (lambda: _model().f(torch.zeros(3, 5)), ValueError, r"x: got shape \(3, 5\), expected \(B, 4\)"),
    (lambda: _model().f(torch.zeros(3, 4).double()), TypeError, "x: got dtype torch.float64, expected torch.float32"),
    (lambda: _model().f(torch.full((1, 4), 0.5)), ValueError, "x: got the value 0.5, expected integers"),
    (lambda: _model()(torch.zeros(1, 4), torch.tensor([3])), ValueError, r"y: got label 3, expected 0 to 2"),
    (lambda: _model()(torch.zeros(1, 4), torch.tensor([0]), "max"), ValueError, "reduction: got 'max', expected 'avg'"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_arguments(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_is_public() -> None:
    assert hybridkern.HybridIDF is HybridIDF
