"""A saved model is built again from its files alone: every flow, head, base and autoencoder, without a pickle."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridkern
from hybridkern import flows, nets, transforms
from hybridkern.distributions import ClassGaussians, DiagonalGaussian, DiscretizedLogisticMixture
from hybridkern.hybrid import HybridModel, heads
from hybridkern.hybrid.vae import CCVAE, DIVA, M1M2, M2, VAE, Gaussian, HybridVAE, Logistic, LogisticMixture
from hybridkern.ops import CouplingForm, SplineForm
from tests.flows.factories import FLOWS, data, make
from tests.saving.own import Doubling, Embedding, Secretive, Shifted, convolution

UNNAMED = {"glow-reverse-1x1-net"}  # its network is a lambda
NAMES = [name for name in FLOWS if not name.startswith("hybrid-idf") and name not in UNNAMED]


def scrambled(model: nn.Module) -> nn.Module:
    """The model with other weights than it started from."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in model.parameters():
            value += 0.1 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
    model.load_state_dict(model.state_dict())  # masked weights are zeros again
    return model


def again(model: nn.Module, path: Path, **options: Any) -> Any:
    model.save(path)
    return hybridkern.load(path, **options)


def same_weights(first: nn.Module, second: nn.Module) -> None:
    assert type(first) is type(second)
    torch.testing.assert_close(dict(second.state_dict()), dict(first.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_every_flow(name: str, tmp_path: Path) -> None:
    made = make(name)
    flow = getattr(made, "flow", made).eval()
    loaded = again(flow, tmp_path / "flow")
    same_weights(flow, loaded)
    x, given = data(made, 4), (made.contexts[:4],) if hasattr(made, "contexts") else ()
    torch.manual_seed(0)
    expected = flow.log_prob(x, *given)
    torch.manual_seed(0)
    torch.testing.assert_close(loaded.log_prob(x, *given), expected, rtol=0, atol=0)
    assert not loaded.training
    flow.train().log_prob(x, *given)  # what a pass leaves behind is no change of the model
    same_weights(flow, again(flow, tmp_path / "used"))


HEADS: dict[str, Callable[[], heads.Head]] = {
    "categorical": lambda: heads.Categorical(4, 3, (5,), activation=nn.SiLU, dropout=0.1, input_dropout=0.2),
    "gaussian": lambda: heads.Gaussian(4, (6,)),
    "bayesian-linear": lambda: heads.BayesianLinear(4, 2.0, 0.5, bias=True, trainable=True).observe(
        torch.randn(9, 4), torch.randn(9)
    ),
    "bayesian-logistic": lambda: heads.BayesianLogistic(4, 3),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("place", ["folder", "model.safetensors"])
def test_every_head(name: str, place: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = scrambled(HybridModel(flows.RealNVP(4, layers=2, hidden=8), HEADS[name]())).eval()
    loaded = again(model, tmp_path / place)
    same_weights(model, loaded)
    x = torch.randn(3, 4)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model(x), loaded(x), strict=True))
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == (
        ["config.json", "model.safetensors"] if place == "folder" else ["model.safetensors"]
    )


def mlp(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 5), nn.LayerNorm(5), nn.Softplus(), nn.Linear(5, outputs))


AUTOENCODERS: dict[str, Callable[[], Any]] = {
    "vae": lambda: VAE(mlp(6, 4), mlp(2, 12), 2, likelihood="gaussian"),
    "hybrid": lambda: HybridVAE(mlp(6, 4), mlp(2, 36), heads.Categorical(2, 3), likelihood=LogisticMixture(2)),
    "m2": lambda: M2(6, 3, latent=2, hidden=(8,)),
    "m2-classifier": lambda: M2(
        6, 3, latent=2, hidden=(8,), classifier=nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    ),
    "diva": lambda: DIVA(6, 3, latent=2, hidden=(8,), domains=2),
    "ccvae": lambda: CCVAE(nn.Linear(6, 10), nn.Linear(5, 6), 6, 3, style=2),
    "m1m2": lambda: M1M2(VAE(nn.Linear(6, 8), nn.Linear(4, 6), 4), 9 * torch.rand(20, 6), 3, latent=2, hidden=(8,)),
    "m1m2-classifier": lambda: M1M2(
        *(VAE(nn.Linear(6, 8), nn.Linear(4, 6), 4), 9 * torch.rand(20, 6), 3),
        latent=2,
        hidden=(8,),
        classifier=nn.Linear(6, 3),
    ),
}


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_every_autoencoder(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = scrambled(AUTOENCODERS[name]()).eval()
    loaded = again(model, tmp_path)
    same_weights(model, loaded)
    x = torch.rand(3, 6)
    torch.manual_seed(1)
    expected = model.log_prob(x)
    torch.manual_seed(1)
    assert torch.equal(loaded.log_prob(x), expected)


def of_classes() -> HybridModel:
    flow = flows.RealNVP(2, layers=2, hidden=8)
    flow.base = ClassGaussians(2, classes=3, radius=2.0)
    return HybridModel(flow, heads.Bayes(flow.base))


def test_a_head_that_shares_the_base(tmp_path: Path) -> None:
    model = scrambled(of_classes()).eval()
    loaded = again(model, tmp_path)
    assert loaded.head.base is loaded.flow.base
    assert torch.equal(loaded(torch.ones(2, 2)).prediction, model(torch.ones(2, 2)).prediction)


@pytest.mark.parametrize(
    ("flow", "base"),
    [
        (functools.partial(flows.MAF, 3, layers=1, hidden=4), lambda: DiagonalGaussian(3, trainable=True)),
        (functools.partial(flows.MAF, 3, layers=1, hidden=4), lambda: ClassGaussians(3, classes=2)),
        (functools.partial(flows.IDF, 3, parts=3, hidden=4), lambda: DiscretizedLogisticMixture(3, components=2)),
    ],
)
def test_a_base_that_took_the_place_of_the_flows_own(
    flow: Callable[[], flows.Flow], base: Callable[[], nn.Module], tmp_path: Path
) -> None:
    built = flow().eval()
    built.base = base()
    same_weights(scrambled(built), again(built, tmp_path))


@pytest.mark.parametrize(
    "build",
    [
        lambda: flows.RealNVP(3, layers=1, form=CouplingForm("tanh", clamp=2.0)),
        lambda: flows.NSF(3, layers=1, bins=4, spline=SplineForm(min_width=1e-2)),
        lambda: flows.Compose(2, (transforms.ActNorm(2) for _ in range(2)), base=ClassGaussians(2, 2)),
        lambda: flows.Glow((1, 4, 4), levels=1, steps=1, net=functools.partial(nets.ConvNet, hidden=3)),
        lambda: flows.Glow((1, 4, 4), levels=1, steps=1, net=nets.HighwayNet),
        lambda: flows.RealNVP(torch.tensor(2), layers=2, hidden=[4, 5]).double(),
    ],
    ids=["form", "spline", "iterator", "partial", "class", "double"],
)
def test_arguments_of_every_kind(build: Callable[[], flows.Flow], tmp_path: Path) -> None:
    flow = build()
    if isinstance(flow, flows.Glow):
        flow.initialize(torch.randn(8, *flow.shape))
    loaded = again(scrambled(flow).eval(), tmp_path)
    same_weights(flow, loaded)
    x = torch.randn(2, *flow.shape, dtype=flow.base.dtype)
    assert torch.equal(loaded.log_prob(x), flow.log_prob(x))


OWN: dict[str, tuple[Callable[[], flows.Flow], list[Any]]] = {
    "function": (lambda: flows.Glow((1, 4, 4), levels=1, steps=1, net=convolution), [convolution]),
    "embedding": (lambda: flows.RealNVP(2, layers=1, hidden=4, context=Embedding(2, factor=0.5)), [Embedding]),
    "flow": (lambda: Doubling(3), [Doubling]),
}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("by", ["object", "path"])
def test_classes_of_ones_own_are_imported_when_they_are_allowed(name: str, by: str, tmp_path: Path) -> None:
    build, allow = OWN[name]
    flow = build().eval()
    flow.save(tmp_path)
    path = f"tests.saving.own.{allow[0].__qualname__}"
    with pytest.raises(ValueError, match=rf"config.json: got '{path}', .*load with allow=\['{path}'\]"):
        hybridkern.load(tmp_path)
    same_weights(flow, hybridkern.load(tmp_path, allow=allow if by == "object" else [path]))


def test_a_base_of_ones_own(tmp_path: Path) -> None:
    flow = flows.RealNVP(2, layers=1, hidden=4).eval()
    flow.base = Shifted(2, by=3.0)
    loaded = again(flow, tmp_path, allow=[Shifted])
    assert torch.equal(loaded.log_prob(torch.zeros(1, 2)), flow.log_prob(torch.zeros(1, 2)))


def inner() -> Callable[[int, int], nn.Module]:
    def net(inputs: int, outputs: int) -> nn.Module:
        return nn.Conv2d(inputs, outputs, 1)

    return net


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "lambda": (lambda: flows.RealNVP(2, layers=1, activation=lambda: nn.ReLU()), "activation: got <function .*lambda"),
    "local": (lambda: flows.Glow((1, 4, 4), levels=1, steps=1, net=inner()), "net: got <function .*inner"),
    "deep": (
        lambda: HybridModel(flows.RealNVP(2), heads.Categorical(2, 2, (3,), activation=lambda: nn.ReLU())),
        "head.activation: got",
    ),
    "module": (
        lambda: flows.RealNVP(2, layers=1, context=Secretive(2)),
        r"context: got .*Secretive.* init_arguments\(\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_named_is_named_in_the_error(name: str, tmp_path: Path) -> None:
    build, message = REFUSED[name]
    with pytest.raises(TypeError, match=message):
        build().save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_was_changed_by_hand(tmp_path: Path) -> None:
    model = HybridModel(flows.RealNVP(2, layers=1, hidden=4), heads.Categorical(2, 3))
    model.head.net[0] = nn.Linear(2, 3, bias=False)
    with pytest.raises(ValueError, match=r"changed after it was built.*head.net.0: got .*bias=False"):
        model.save(tmp_path)
    model.head = heads.Categorical(2, 4)  # another head as a whole is no change: it says itself how it was built
    assert again(model, tmp_path).head.classes == 4


SET: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "diva": (lambda: DIVA(6, 3, latent=2, hidden=(8,), beta=0.0), {"beta": 1.0, "weight": 3, "domain_weight": 0.5}),
    "m2": (lambda: M2(6, 3, latent=2, hidden=(8,)), {"weight": 0.25}),
    "ccvae": (lambda: CCVAE(nn.Linear(6, 10), nn.Linear(5, 6), 6, 3, style=2), {"samples": 7}),
    "glow": (lambda: flows.Glow((1, 4, 4), levels=2, steps=1, hidden=3), {"memory": "invert"}),
    "maf": (lambda: flows.MAF(3, layers=1, hidden=4), {"memory": "recompute"}),
    "compose": (lambda: flows.Compose(2, [transforms.ActNorm(2)]), {"memory": "recompute"}),
    "idf": (
        lambda: hybridkern.HybridIDF([lambda_free_net], nn.Linear(2, 2), 1, 0.5),
        {"alpha": 2.0},
    ),
}


def lambda_free_net() -> nn.Module:
    return nn.Linear(1, 1)


@pytest.mark.parametrize("name", SET)
def test_settings_that_were_set_anew(name: str, tmp_path: Path) -> None:
    """As in the source of DIVA, whose beta rises during training."""
    build, values = SET[name]
    model = build()
    for setting, value in values.items():
        setattr(model, setting, value)
    loaded = again(model, tmp_path, allow=[lambda_free_net])
    assert {setting: getattr(loaded, setting) for setting in values} == values


def test_settings_of_heads_and_of_what_a_model_is_made_of(tmp_path: Path) -> None:
    model = HybridModel(flows.RealNVP(2, layers=1, hidden=4), heads.Categorical(2, 3))
    model.head.label_smoothing = 0.25
    assert again(model, tmp_path).head.label_smoothing == 0.25
    second = M1M2(VAE(nn.Linear(6, 8), nn.Linear(4, 6), 4), 9 * torch.rand(20, 6), 3, latent=2, hidden=(8,))
    second.second.weight = 0.125
    assert again(second, tmp_path).second.weight == 0.125


LOGISTIC: dict[str, Callable[[], Any]] = {
    "vae": lambda: VAE(mlp(6, 4), mlp(2, 12), 2, likelihood="logistic"),
    "hybrid": lambda: HybridVAE(mlp(6, 4), mlp(2, 12), heads.Categorical(2, 3), likelihood="logistic"),
    "m2": lambda: M2(6, 3, latent=2, hidden=(8,), likelihood="logistic"),
    "diva": lambda: DIVA(6, 3, latent=2, hidden=(8,), likelihood="logistic"),
    "ccvae": lambda: CCVAE(nn.Linear(6, 10), nn.Linear(5, 12), 6, 3, style=2, likelihood="logistic"),
    "m1": lambda: M1M2(
        VAE(nn.Linear(6, 8), nn.Linear(4, 12), 4, likelihood="logistic"), 9 * torch.rand(20, 6), 3, latent=2
    ),
}


@pytest.mark.parametrize("name", LOGISTIC)
def test_a_likelihood_that_was_changed_or_replaced(name: str, tmp_path: Path) -> None:
    model = LOGISTIC[name]()
    owner = getattr(model, "flow", getattr(model, "first", model))
    owner.likelihood.bin_width = 0.25
    loaded = again(model, tmp_path)
    assert getattr(loaded, "flow", getattr(loaded, "first", loaded)).likelihood.bin_width == 0.25
    owner.likelihood = Gaussian()  # takes two numbers for each value, too
    loaded = again(model, tmp_path)
    assert type(getattr(loaded, "flow", getattr(loaded, "first", loaded)).likelihood) is Gaussian


def test_what_a_layer_holds_that_is_no_module(tmp_path: Path) -> None:
    flow = flows.MAF(2, layers=1, hidden=4)
    flow.layers[-1].element = transforms.AffineElement(CouplingForm("tanh", clamp=3.0))
    with pytest.raises(ValueError, match=r"changed after it was built.*element"):
        flow.save(tmp_path)
    model = LOGISTIC["m1"]()
    model.second.likelihood = Logistic()
    with pytest.raises(ValueError, match=r"changed after it was built.*second.likelihood: got Logistic, expected G"):
        model.save(tmp_path)
    flow = flows.RealNVP(2, layers=1, context=Embedding(2, factor=0.5))
    flow.embedding.forward = torch.tanh
    with pytest.raises(ValueError, match=r"changed after it was built.*embedding.forward: got .*tanh"):
        flow.save(tmp_path)


def test_other_attributes_that_were_changed_are_refused(tmp_path: Path) -> None:
    flow = flows.Residual(2, blocks=1, hidden=(4,))
    flow.training_series = dataclasses.replace(flow.training_series, terms=5)
    with pytest.raises(ValueError, match=r"changed after it was built.*training_series: got Series\(terms=5"):
        flow.save(tmp_path)
    flow = flows.RealNVP(2, layers=1, hidden=4)
    flow.couplings[0].form = CouplingForm("tanh", clamp=3.0)
    with pytest.raises(ValueError, match="changed after it was built"):
        flow.save(tmp_path)


def test_parameters_that_were_made_one_are_refused(tmp_path: Path) -> None:
    """A loaded model would train them apart; a module that stands twice is one again."""
    flow = flows.RealNVP(2, layers=2, hidden=4)
    first, second = (coupling.net[0] for coupling in flow.couplings)
    second.weight = first.weight
    with pytest.raises(
        ValueError, match=r"changed after.* couplings.1.net.0.weight: got couplings.0.net.0.weight once"
    ):
        flow.save(tmp_path)
    layer = transforms.LULinear(2)
    loaded = again(flows.Compose(2, [layer, transforms.ActNorm(2), layer]), tmp_path)
    assert loaded.layers[0] is loaded.layers[2]


def test_nothing_else_is_touched(tmp_path: Path) -> None:
    """Neither the random numbers of the process nor the model."""
    flow = flows.IDF(3, layers=1, parts=2, hidden=4)
    state, before = torch.get_rng_state(), copy.deepcopy(flow.state_dict())
    again(flow, tmp_path)
    assert torch.equal(torch.get_rng_state(), state) and flow.training
    torch.testing.assert_close(dict(flow.state_dict()), dict(before), rtol=0, atol=0)


def test_copies_and_pickles_can_be_saved(tmp_path: Path) -> None:
    model = of_classes()
    for number, other in enumerate([copy.deepcopy(model), pickle.loads(pickle.dumps(model))]):
        same_weights(model, again(other, tmp_path / str(number)))


def test_training_data_are_not_kept() -> None:
    """A model remembers its arguments, and of tensors among them only the shape."""
    model = AUTOENCODERS["m1m2"]()
    assert not any(isinstance(value, Tensor) for value in model._built_from.args)
