"""Every lazy transform of zuko, cheap, on vectors of 4 features, with and without a context; models around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import zuko
from torch import Tensor, nn
from zuko import transforms
from zuko.flows import autoregressive, coupling, gaussianization
from zuko.flows.spline import CircularRQSTransform

from tests.integrations.compositions.compare import Call
from tests.integrations.compositions.networks import NETWORKS

DIM, CONTEXT = 4, 2
SHAPE = (DIM,)
Make = Callable[[str], Callable[[int], nn.Module]]  # network to context to layer
ACTIVATIONS = {"plain": nn.Tanh, "glow": nn.ReLU, "counting": nn.ELU, "in place": partial(nn.ReLU, inplace=True)}
AFFINE: dict[str, Any] = {}
ADDITIVE: dict[str, Any] = {"univariate": transforms.AdditiveTransform, "shapes": [()]}
SPLINE: dict[str, Any] = {"univariate": transforms.MonotonicRQSTransform, "shapes": [(3,), (3,), (2,)]}
STEEP: dict[str, Any] = {**SPLINE, "univariate": partial(transforms.MonotonicRQSTransform, bound=1, slope=1e-5)}
CIRCLE: dict[str, Any] = {**SPLINE, "univariate": partial(CircularRQSTransform, slope=1e-2)}
MAPS = {"affine": AFFINE, "additive": ADDITIVE, "spline": SPLINE, "steep": STEEP, "circle": CIRCLE}


def _masked(univariate: dict[str, Any], **options: Any) -> Make:
    def make(name: str) -> Callable[[int], nn.Module]:
        activation = ACTIVATIONS.get(name, nn.Sigmoid)
        return lambda context: autoregressive.MaskedAutoregressiveTransform(
            DIM, context, hidden_features=(5, 5), activation=activation, **univariate, **options
        )

    return make


def _coupled(univariate: dict[str, Any], mask: list[int]) -> Make:
    def make(name: str) -> Callable[[int], nn.Module]:
        def build(context: int) -> nn.Module:
            layer = coupling.GeneralCouplingTransform(DIM, context, mask=mask, hidden_features=(5,), **univariate)
            if name not in ("plain", "glow"):
                layer.hyper = NETWORKS[name](sum(mask) + context, (DIM - sum(mask)) * layer.total, False)
            return layer

        return build

    return make


def _elements(univariate: dict[str, Any]) -> Make:
    return lambda _: (
        lambda context: gaussianization.ElementWiseTransform(DIM, context, hidden_features=(5,), **univariate)
    )


def _fixed(build: Callable[[], nn.Module]) -> Make:
    return lambda _: lambda context: build()


COUPLINGS: Mapping[str, Make] = {
    **{f"masked {name}": _masked(univariate) for name, univariate in MAPS.items()},
    "residual": _masked(SPLINE, residual=True),
    "two passes": _masked(AFFINE, passes=2, order=[3, 0, 2, 1]),
    "graph": _masked(
        SPLINE, adjacency=torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 1, 1]], dtype=torch.bool)
    ),
    **{f"coupled {name}": _coupled(univariate, [1, 0, 1, 0]) for name, univariate in MAPS.items()},
    "halves": _coupled(SPLINE, [0, 0, 1, 1]),
    "uneven": _coupled(AFFINE, [1, 0, 0, 1]),
    "inverted": lambda name: lambda context: _masked(AFFINE)(name)(context).inv,
    "elements": _elements(SPLINE),
}
OTHERS: Mapping[str, Make] = {
    "affine elements": _elements(AFFINE),
    "additive elements": _elements(ADDITIVE),
    "rotation": _fixed(lambda: _unconditional(transforms.RotationTransform, torch.randn(DIM, DIM))),
    "lu": _fixed(lambda: _unconditional(transforms.LULinearTransform, torch.eye(DIM) + 0.1 * torch.randn(DIM, DIM))),
    "permutation": _fixed(lambda: _unconditional(transforms.PermutationTransform, torch.tensor([2, 0, 3, 1]))),
    "clip": _fixed(lambda: _unconditional(transforms.SoftclipTransform, bound=11.0)),
    "shift": _fixed(lambda: _unconditional(transforms.MonotonicAffineTransform, torch.randn(DIM), torch.randn(DIM))),
    "polynomial": _masked(
        {"univariate": partial(transforms.BernsteinTransform, bound=10.0), "shapes": [(5,)]}, passes=2
    ),
}


def _unconditional(function: Any, *args: Any, **options: Any) -> nn.Module:
    return zuko.lazy.UnconditionalTransform(function, *args, buffer=True, **options)


class Model(nn.Module):
    """A flow with a context or without; what is called is its distribution."""

    def __init__(self, layers: Sequence[Callable[[int], nn.Module]], base: nn.Module, context: int) -> None:
        super().__init__()
        self.flow = zuko.flows.Flow([build(context) for build in layers], base)
        self.context = context

    def forward(self, c: Tensor | None) -> Any:
        """The distribution."""
        return self.flow(c) if self.context else self.flow()


def _normal() -> nn.Module:
    return zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(DIM), torch.ones(DIM), buffer=True
    )


def _plain(layers: Sequence[Any], shape: tuple[int, ...]) -> nn.Module:
    return Model(layers, _normal(), 0)


def _conditional(layers: Sequence[Any], shape: tuple[int, ...]) -> nn.Module:
    return Model(layers, _normal(), CONTEXT)


def _mixture(layers: Sequence[Any], shape: tuple[int, ...]) -> nn.Module:
    return Model(layers, zuko.mixtures.GMM(DIM, CONTEXT, components=2, hidden_features=(5,)), CONTEXT)


MODELS: dict[str, Any] = {"plain": _plain, "conditional": _conditional, "mixture": _mixture}


def _ladj(model: Any, x: Tensor, c: Tensor) -> Tensor:
    transform = model(c).transform
    return transform.log_abs_det_jacobian(x, transform(x))


CALLS: Sequence[tuple[str, Call]] = (
    ("log_prob", lambda m, x, c: m(c).log_prob(x)),
    ("log_prob of a grid", lambda m, x, c: m(c).log_prob(x[:, None])),
    ("log_prob for one context", lambda m, x, c: m(c[0]).log_prob(x)),
    ("one example", lambda m, x, c: m(c).transform(x[0])),
    ("images of vectors", lambda m, x, c: m(c[:1]).log_prob(x.expand(2, 3, *x.shape))),
    ("transform", lambda m, x, c: m(c).transform.call_and_ladj(x)),
    ("ladj", _ladj),
    ("inverse", lambda m, x, c: m(c).transform.inv(x)),
    ("inverse with ladj", lambda m, x, c: m(c).transform.inv.call_and_ladj(x)),
    ("inverse for one context", lambda m, x, c: m(c[0]).transform.inv.call_and_ladj(x)),
    ("inverse of one example", lambda m, x, c: m(c).transform.inv(x[0])),
    ("inference log_prob", lambda m, x, c: m(c).log_prob(x)),
    ("no_grad inverse", lambda m, x, c: m(c).transform.inv(x)),
    ("sample", lambda m, x, c: m(c).sample((2,))),
    ("inference sample", lambda m, x, c: m(c).sample((2,))),
    ("wide features", lambda m, x, c: m(c).log_prob(torch.cat([x, x], -1))),
)
