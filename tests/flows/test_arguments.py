"""Bad arguments get one error that names the argument, what came and what was expected."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hybridkern import flows, transforms
from hybridkern.distributions import ClassGaussians, DiagonalGaussian, DiscretizedLogistic, DiscretizedLogisticMixture
from hybridkern.hybrid import HybridModel, heads
from hybridkern.hybrid.vae import M2, VAE
from hybridkern.nets import MADE

CONSTRUCTION = [
    (lambda: flows.IDF((1, 8)), TypeError, r"dim: got \(1, 8\), expected three integers \(C, H, W\)"),
    (lambda: flows.IDF(4.0), TypeError, "dim: got 4.0, expected an integer"),
    (lambda: flows.IDF(), TypeError, "dim: got None with shape None, expected one of the two"),
    (lambda: flows.IDF(4, shape=(1, 8, 8)), TypeError, r"dim: got 4 with shape \(1, 8, 8\), expected one of the two"),
    (
        lambda: flows.IDF(shape=(1, 8, 6)),
        ValueError,
        r"shape: got \(1, 8, 6\), expected W to be divisible by 2\*\*levels = 4",
    ),
    (lambda: flows.IDF((1, 8, 8), parts=5), ValueError, "parts: got 5, expected at most 4 C = 4"),
    (
        lambda: flows.IDF((1, 8, 8), lattice="tutorial"),
        ValueError,
        "lattice: got .tutorial., expected .exact. for images",
    ),
    (lambda: flows.IDF((1, 8, 8), levels=0), ValueError, "levels: got 0, expected at least 1"),
    (lambda: flows.IDF((1, 8, 8), dropout=0.5), ValueError, "dropout: got 0.5, expected the default for images"),
    (lambda: flows.IDF((1, 8, 8), hidden=(4, 5)), ValueError, "hidden: got .*, expected one width for images"),
    (lambda: flows.RealNVP((8, 8)), TypeError, r"dim: got \(8, 8\), expected three integers \(C, H, W\)"),
    (
        lambda: flows.RealNVP((1, 8, 6)),
        ValueError,
        r"dim: got \(1, 8, 6\), expected W to be divisible by 2\*\*levels = 4",
    ),
    (lambda: flows.RealNVP((1, 8, 8), hidden=(3, 4)), ValueError, r"hidden: got \(3, 4\), expected one width"),
    (lambda: flows.RealNVP((1, 8, 8), dropout=0.5), ValueError, "dropout: got 0.5, expected the default for images"),
    (lambda: flows.RealNVP(0), ValueError, "dim: got 0, expected at least 1"),
    (lambda: flows.RealNVP(True), TypeError, "dim: got True, expected an integer"),
    (lambda: flows.RealNVP(4, layers=0), ValueError, "layers: got 0, expected at least 1"),
    (lambda: flows.RealNVP(4, hidden=(8, 0)), ValueError, "expected positive integers"),
    (lambda: flows.RealNVP(4, form="nice"), ValueError, "form: got 'nice', expected one of exp"),
    (lambda: flows.RealNVP(4, dropout=1.0), ValueError, "dropout: got 1.0, expected a probability"),
    (lambda: flows.Planar(0), ValueError, "dim: got 0, expected at least 1"),
    (lambda: flows.Planar((2,)), TypeError, r"dim: got \(2,\), expected an integer"),
    (lambda: flows.Planar(2, layers=0), ValueError, "layers: got 0, expected at least 1"),
    (lambda: flows.Glow(64), TypeError, r"shape: got 64, expected three integers \(C, H, W\)"),
    (
        lambda: flows.Glow((3, 12, 8)),
        ValueError,
        r"shape: got \(3, 12, 8\), expected H to be divisible by 2\*\*levels = 8",
    ),
    (lambda: flows.Glow((3, 8, 9), levels=1), ValueError, r"shape: got \(3, 8, 9\), expected W to be divisible by"),
    (lambda: flows.Glow((0, 8, 8)), ValueError, r"shape: got \(0, 8, 8\), expected positive sizes"),
    (lambda: flows.Glow((3, 8, 8), levels=0), ValueError, "levels: got 0, expected at least 1"),
    (lambda: flows.Glow((3, 8, 8), steps=0), ValueError, "steps: got 0, expected at least 1"),
    (lambda: flows.Glow((3, 8, 8), hidden=0), ValueError, "hidden: got 0, expected at least 1"),
    (
        lambda: flows.Glow((3, 8, 8), net="deep"),
        ValueError,
        "net: got 'deep', expected 'conv', 'highway' or a callable",
    ),
    (
        lambda: flows.Glow((3, 8, 8), norm="layer"),
        ValueError,
        "norm: got 'layer', expected 'actnorm' or 'batchnorm'",
    ),
    (
        lambda: flows.Glow((3, 8, 8), permutation="x"),
        ValueError,
        "permutation: got 'x', expected 'conv1x1', 'shuffle'",
    ),
    (lambda: flows.Glow((3, 8, 8), form="nice"), ValueError, "form: got 'nice', expected one of exp"),
    (lambda: flows.IDF(4, parts=5), ValueError, "parts: got 5, expected at most dim = 4"),
    (lambda: flows.IDF(4, parts=1), ValueError, "parts: got 1, expected at least 2"),
    (lambda: flows.IDF(4, lattice="z"), ValueError, "lattice: got 'z', expected 'exact' or 'tutorial'"),
    (lambda: flows.IDF(4, scale=0.0), ValueError, "scale: got 0.0, expected a finite number greater than 0"),
    (lambda: flows.IDF(4, center=float("nan")), ValueError, "center: got nan, expected a finite number"),
    (lambda: flows.IDF(4, prior="normal"), ValueError, "prior: got 'normal', expected 'logistic' or 'mixture'"),
]


@pytest.mark.parametrize(("build", "error", "message"), CONSTRUCTION)
def test_construction(build: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


INPUT = [
    (torch.zeros(3, 5), ValueError, r": got shape \(3, 5\), expected \(B, 4\)"),
    (torch.zeros(4), ValueError, r": got shape \(4,\), expected \(B, 4\)"),
    (torch.zeros(3, 4, dtype=torch.float64), TypeError, ": got dtype torch.float64, expected torch.float32"),
    (torch.zeros(3, 4, dtype=torch.complex64), TypeError, ": got dtype torch.complex64, expected torch.float32"),
    ([[0.0] * 4], TypeError, ": got list, expected a torch.Tensor"),
]


def test_whole_numbers_for_a_flow_on_real_ones() -> None:
    with pytest.raises(
        TypeError, match=r"got dtype torch\.int64, .* \(x\.to\(torch\.float32\) converts whole numbers\)"
    ):
        flows.RealNVP(4, layers=1)(torch.zeros(2, 4, dtype=torch.int64))


@pytest.mark.parametrize(("x", "error", "message"), INPUT)
@pytest.mark.parametrize("build", [flows.RealNVP, flows.IDF, flows.Planar])
def test_input(build: type[flows.Flow], x: object, error: type[Exception], message: str) -> None:
    flow = build(4, layers=1)
    with pytest.raises(error, match="x" + message):
        flow(x)
    with pytest.raises(error, match="z" + message):
        flow.inverse(x)


IMAGES = [
    (torch.zeros(3, 3, 4, 8), ValueError, r"x: got shape \(3, 3, 4, 8\), expected \(B, 3, 4, 4\)"),
    (torch.zeros(3, 4, 4), ValueError, r"x: got shape \(3, 4, 4\), expected \(B, 3, 4, 4\)"),
    (torch.zeros(3, 3, 4, 4, dtype=torch.uint8), TypeError, "x: got dtype torch.uint8, .* transforms.dequantize makes"),
    ([0.0], TypeError, "x: got list, expected a torch.Tensor"),
]


@pytest.mark.parametrize(("x", "error", "message"), IMAGES)
def test_images(x: object, error: type[Exception], message: str) -> None:
    flow = flows.Glow((3, 4, 4), levels=1, steps=1, hidden=4)
    for function in (flow, flow.initialize):
        with pytest.raises(error, match=message):
            function(x)
    for function in (flow.inverse, flow.latents):
        with pytest.raises(ValueError, match=r"z: got shape \(2, 5\), expected \(B, 48\)"):
            function(torch.zeros(2, 5))


def test_networks_may_be_given() -> None:
    asked = []

    def net(in_features: int, out_features: int) -> nn.Module:
        asked.append((in_features, out_features))
        return nn.Linear(in_features, out_features)

    flows.RealNVP(5, layers=2, net=net)
    flows.RealNVP(5, layers=2, net=net, form="additive")
    flows.IDF(5, layers=1, parts=2, net=net)
    assert asked == [(3, 4), (2, 6), (3, 2), (2, 3), (2, 3), (3, 2)]


def test_prior_by_name() -> None:
    assert isinstance(flows.IDF(4, layers=1, hidden=4).base, DiscretizedLogistic)
    mixture = flows.IDF(4, layers=1, hidden=4, prior="mixture", components=3).base
    assert isinstance(mixture, DiscretizedLogisticMixture) and mixture.mean.shape == (1, 3, 4)


def test_dropout_is_off_in_evaluation() -> None:
    torch.manual_seed(0)
    flow = flows.IDF(4, layers=1, hidden=16, dropout=0.5)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += torch.randn_like(parameter)
    x = torch.arange(40.0).view(10, 4)
    assert not torch.equal(flow(x)[0], flow(x)[0])
    flow.eval()
    assert torch.equal(flow.inverse(flow(x)[0])[0], x)


def test_autocast_keeps_the_flow_in_float32() -> None:
    torch.manual_seed(0)
    for flow in (flows.RealNVP(4, layers=2, hidden=8), flows.IDF(4, layers=2, hidden=8), flows.Planar(4, layers=2)):
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
        x = torch.arange(12.0).view(3, 4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z, log_det = flow(x)
            log_p = flow.log_prob(x)
        assert {z.dtype, log_det.dtype, log_p.dtype} == {torch.float32}
        log_p.sum().backward()


HEADS = [f"hybrid.heads.{name}" for name in ("gaussian", "bayesian_linear", "bayesian_logistic")]


@pytest.mark.parametrize(
    "module",
    [
        *(f"flows.{n}" for n in ("realnvp", "idf", "planar", "glow", "maf", "nsf", "compose", "check")),
        "nets.masked",
        "hybrid.model",
        *HEADS,
    ],
)
def test_examples_in_docstrings(module: str) -> None:
    results = doctest.testmod(importlib.import_module(f"hybridkern.{module}"))
    assert results.attempted > 0 and results.failed == 0


@pytest.mark.parametrize("n", [-1, 2.5, "a", True])
def test_numbers_of_samples(n: object) -> None:
    error = ValueError if n == -1 else TypeError
    conditional, context = flows.MAF(2, layers=1, hidden=4, context=3), torch.zeros(2, 3)
    calls = [
        lambda: flows.RealNVP(2, layers=1, hidden=4).sample(n),
        lambda: flows.IDF(3, layers=1, parts=2, hidden=4).sample_and_log_prob(n),
        lambda: conditional.sample(n, context),
        lambda: ClassGaussians(2, 3).sample_of_class(0, n),
        lambda: M2(3, 2, latent=1, hidden=(4,)).sample(n),
        lambda: VAE(nn.Linear(3, 2), nn.Linear(1, 3), 1).sample(n),
        lambda: HybridModel(flows.Planar(2), heads.Categorical(2, 2)).sample_with_prediction(n),
    ]
    for call in calls:
        with pytest.raises(error, match=f"n: got {n!r}, expected an integer of at least 0"):
            call()


class Reversal(nn.Module):
    """A bijection of the integers."""

    def forward(self, x: Tensor, log_det: Tensor | None = None, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        return -x, x.new_zeros(len(x)) if log_det is None else log_det


def test_layers_of_real_numbers_have_no_base_of_integers() -> None:
    """The mass of an interval and a log-determinant make no density."""
    base = DiscretizedLogistic(2)
    net = MADE(2, 2, (4,))
    for layer in (
        transforms.ActNorm(2),
        transforms.LULinear(2),
        transforms.PlanarMap(2),
        transforms.Autoregressive(net, transforms.AffineElement("exp")),
        transforms.Coupling(nn.Linear(1, 8), transforms.SplineElement("nflows", 3, 1.0), 1),
    ):
        with pytest.raises(ValueError, match=f"base: got DiscretizedLogistic, .*which {type(layer).__name__} gives"):
            flows.Compose(2, [transforms.Permutation(2), layer], base=base)
    whole = flows.Compose(2, [transforms.Permutation(2), Reversal()], base=base)
    numbers = torch.arange(-99.0, 100)
    assert whole.log_prob(torch.cartesian_prod(numbers, numbers)).exp().sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("build", "base", "message"),
    [
        (lambda: flows.NSF(3, layers=1), DiscretizedLogisticMixture(3, 2), "of integers, expected one of real numbers"),
        (lambda: flows.IDF(3, parts=3, hidden=4), DiagonalGaussian(3), "of real numbers, expected one of integers"),
        (lambda: flows.Glow((1, 4, 4), levels=1, steps=1), DiagonalGaussian(3), "got 3 dimensions, expected 16"),
        (lambda: flows.NSF(3, layers=1), torch.distributions.Normal(0.0, 1.0), "got Normal, expected a Distribution"),
    ],
)
def test_another_base_is_of_the_same_latents(build: Callable[[], flows.Flow], base: Any, message: str) -> None:
    flow = build()
    former = flow.base
    with pytest.raises((TypeError, ValueError), match=message):
        flow.base = base
    assert flow.base is former
