"""Models of zuko: its flows of affine maps and splines with their options, and lazy transforms put together by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import zuko
from torch import Tensor, nn
from zuko import flows, transforms
from zuko.flows import autoregressive, coupling, gaussianization

from hybridkern.integrations import accelerate
from tests.integrations.cases import Case, Latents

CONTEXT = 3
HIDDEN: dict[str, Any] = {"hidden_features": (16, 12)}


def _to_latent(model: Any, x: Tensor, *context: Tensor) -> tuple[Latents, Tensor]:
    z, log_det = model(*context).transform.call_and_ladj(x)
    return [z], log_det


def _to_data(model: Any, latents: Latents, *context: Tensor) -> tuple[Tensor, Tensor]:
    x, log_det = model(*context).transform.inv.call_and_ladj(*latents)
    return x, log_det


def _case(build: Any, features: int, context: int = 0) -> Case:
    return Case(
        build,
        (features,),
        _to_latent,
        _to_data,
        lambda m, x, *given: m(*given).log_prob(x),
        None if context else lambda m, n: m().rsample_and_log_prob((n,)),
        context,
    )


def _normal(features: int) -> nn.Module:
    return zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(features), torch.ones(features), buffer=True
    )


def graph() -> nn.Module:
    """Adjacency matrices in place of an order, with and without columns for the context."""
    eye = torch.eye(5, dtype=torch.bool)
    chain = eye | torch.diag(torch.ones(4, dtype=torch.bool), -1)
    tree = eye.clone()
    tree[[0, 1, 3, 4], [2, 2, 2, 0]] = True
    seen = torch.cat([tree, torch.tensor([[1, 0, 1]] * 3 + [[0, 0, 1]] * 2, dtype=torch.bool)], 1)
    layer = partial(autoregressive.MaskedAutoregressiveTransform, 5, CONTEXT, **HIDDEN)
    return flows.Flow([layer(adjacency=chain), layer(adjacency=seen)], _normal(5))


def couplings() -> nn.Module:
    """Halves, a single feature, and the additive map of NICE."""
    layer = partial(coupling.GeneralCouplingTransform, 5, **HIDDEN)
    spline: dict[str, Any] = {
        "univariate": partial(transforms.MonotonicRQSTransform, bound=3.0, slope=1e-2),
        "shapes": [(4,), (4,), (3,)],
    }
    additive: dict[str, Any] = {"univariate": transforms.AdditiveTransform, "shapes": [()]}
    return flows.Flow(
        [
            layer(mask=[1, 1, 0, 0, 0], **spline),
            layer(mask=[0, 0, 1, 1, 1]),
            layer(mask=[1, 0, 1, 1, 0], **additive),
            layer(mask=[0, 1, 1, 1, 1], univariate=partial(transforms.MonotonicAffineTransform, slope=0.1)),
        ],
        _normal(5),
    )


def inverted() -> nn.Module:
    """Fast to sample from: an inverse autoregressive flow; and additive maps."""
    affine = autoregressive.MaskedAutoregressiveTransform(4, CONTEXT, **HIDDEN)
    additive = autoregressive.MaskedAutoregressiveTransform(
        4, CONTEXT, univariate=transforms.AdditiveTransform, shapes=[()], **HIDDEN
    )
    return flows.Flow([affine.inv, additive, additive.inv], _normal(4))


def elements(context: int) -> nn.Module:
    """Features by themselves between features together."""
    spline: dict[str, Any] = {"univariate": transforms.MonotonicRQSTransform, "shapes": [(6,), (6,), (5,)]}
    layers = [
        gaussianization.ElementWiseTransform(4, context, **spline),
        gaussianization.ElementWiseTransform(4, context),
        zuko.lazy.UnconditionalTransform(transforms.RotationTransform, torch.randn(4, 4)),
        autoregressive.MaskedAutoregressiveTransform(4, context, **HIDDEN),
    ]
    return flows.Flow(layers, _normal(4))


CASES = {
    "maf": _case(lambda: flows.MAF(5, **HIDDEN), 5),
    "maf of a context": _case(lambda: flows.MAF(5, CONTEXT, randperm=True, **HIDDEN), 5, CONTEXT),
    "maf residual": _case(lambda: flows.MAF(5, CONTEXT, residual=True, hidden_features=(16, 16, 12)), 5, CONTEXT),
    "maf tanh": _case(lambda: flows.MAF(5, activation=nn.Tanh, **HIDDEN), 5),
    "maf elu": _case(lambda: flows.MAF(5, activation=nn.ELU, **HIDDEN), 5),
    "maf without hidden units": _case(lambda: flows.MAF(4, CONTEXT, hidden_features=()), 4, CONTEXT),
    "maf in three passes": _case(lambda: flows.MAF(6, CONTEXT, passes=3, **HIDDEN), 6, CONTEXT),
    "nsf": _case(lambda: flows.NSF(4, **HIDDEN), 4),
    "nsf of a context": _case(lambda: flows.NSF(4, CONTEXT, bins=5, slope=1e-2, **HIDDEN), 4, CONTEXT),
    "nsf coupling": _case(lambda: flows.NSF(5, passes=2, randperm=True, **HIDDEN), 5),
    "nsf of one feature": _case(lambda: flows.NSF(1, CONTEXT, **HIDDEN), 1, CONTEXT),
    "nsf of one feature alone": _case(lambda: flows.NSF(1), 1),
    "ncsf": _case(lambda: flows.NCSF(3, CONTEXT, **HIDDEN), 3, CONTEXT),
    "nice": _case(lambda: flows.NICE(5, CONTEXT, **HIDDEN), 5, CONTEXT),
    "real nvp": _case(lambda: flows.RealNVP(6, randmask=True, **HIDDEN), 6),
    "couplings": _case(couplings, 5),
    "graph": _case(graph, 5, CONTEXT),
    "inverted": _case(inverted, 4, CONTEXT),
    "elements": _case(lambda: elements(0), 4),
    "elements of a context": _case(lambda: elements(CONTEXT), 4, CONTEXT),
}


SPLINE: dict[str, Any] = {"univariate": transforms.MonotonicRQSTransform, "shapes": [(4,), (4,), (3,)]}


def both(build: Callable[[], Any], **options: Any) -> tuple[Any, Any]:
    """The library's model in float64, and an accelerated copy."""
    torch.manual_seed(0)
    theirs = build().double()
    ours = copy.deepcopy(theirs)
    assert accelerate(ours, **options).replaced
    return theirs, ours


def same(got: Any, expected: Any) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def elementwise(**options: Any) -> Any:
    return lambda: gaussianization.ElementWiseTransform(3, **options)
