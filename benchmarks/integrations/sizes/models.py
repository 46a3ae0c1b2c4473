"""A small model for each class of layers that ``accelerate`` replaces, of any number of dimensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.integrations.works import FLOAT32, NETWORKS

Loss = Callable[[nn.Module, Tensor], Tensor]
LAYERS, HIDDEN, BINS = 2, 64, 8


@dataclass(frozen=True)
class Model:
    """A model to be measured as it is and accelerated.

    Attributes:
        name: of the rows.
        build: from the number of dimensions to the model.
        loss: what is differentiated.
        way: how it is accelerated, of :data:`benchmarks.integrations.works.OPTIONS`.
    """

    name: str
    build: Callable[[int], nn.Module]
    loss: Loss
    way: str = FLOAT32


def _moved(model: nn.Module) -> nn.Module:
    """With parameters as after some training: the libraries start near the identity."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    return model


def _likelihood(model: Any, x: Tensor) -> Tensor:
    loss: Tensor = -model.log_prob(x).mean()
    return loss


def _lazy(model: Any, x: Tensor) -> Tensor:
    return _likelihood(model(), x)


def _pass(model: Any, x: Tensor) -> Tensor:
    """Through FrEIA's layers, or those of normflows in the direction that is one pass of a masked network."""
    z, log_det = model(x) if not hasattr(model, "forward_and_log_det") else model.forward_and_log_det(x)
    loss: Tensor = (0.5 * z.square().sum(1) - log_det).mean()
    return loss


def _normflows(layer: Callable[[int, int], list[nn.Module]], dim: int) -> nn.Module:
    import normflows as nf

    flows = [flow for i in range(LAYERS) for flow in layer(dim, i)]
    return _moved(nf.NormalizingFlow(nf.distributions.DiagGaussian(dim), flows))


def _nf_couplings(dim: int, _: int) -> list[nn.Module]:
    import normflows as nf

    network = nf.nets.MLP([dim // 2, HIDDEN, HIDDEN, dim])
    return [nf.flows.AffineCouplingBlock(network), nf.flows.Permute(dim, mode="swap")]


def _nf_masked(dim: int, place: int) -> list[nn.Module]:
    import normflows as nf

    mask = (torch.arange(dim) % 2 == place % 2).float()
    scale, shift = (nf.nets.MLP([dim, HIDDEN, dim], init_zeros=True) for _ in range(2))
    return [nf.flows.MaskedAffineFlow(mask, shift, scale)]


def _nf_splines(dim: int, _: int) -> list[nn.Module]:
    import normflows as nf

    return [nf.flows.CoupledRationalQuadraticSpline(dim, 1, HIDDEN, num_bins=BINS), nf.flows.LULinearPermute(dim)]


def _nf_autoregressive_splines(dim: int, _: int) -> list[nn.Module]:
    import normflows as nf

    return [nf.flows.AutoregressiveRationalQuadraticSpline(dim, 1, HIDDEN, num_bins=BINS)]


def _nf_maf(dim: int, _: int) -> list[nn.Module]:
    import normflows as nf

    return [nf.flows.MaskedAffineAutoregressive(dim, HIDDEN, num_blocks=1), nf.flows.Permute(dim, "swap")]


def _nflows(layer: Callable[[int, int], list[nn.Module]], dim: int, diagonal: bool = False) -> nn.Module:
    from nflows import distributions, flows, transforms

    parts = [part for i in range(LAYERS) for part in layer(dim, i)]
    base = distributions.DiagonalNormal([dim]) if diagonal else distributions.StandardNormal([dim])
    return _moved(flows.Flow(transforms.CompositeTransform(parts), base))


def _residual(inputs: int, outputs: int) -> nn.Module:
    from nflows.nn import nets

    return nets.ResidualNet(inputs, outputs, hidden_features=HIDDEN, num_blocks=1)


def _couplings(kind: str, dim: int, place: int) -> list[nn.Module]:
    from nflows import transforms
    from nflows.utils import torchutils

    mask = torchutils.create_alternating_binary_mask(dim, even=place % 2 == 0)
    return [getattr(transforms, kind)(mask, _residual)]


def _splines(dim: int, place: int) -> list[nn.Module]:
    from nflows import transforms
    from nflows.utils import torchutils

    mask = torchutils.create_alternating_binary_mask(dim, even=place % 2 == 0)
    coupling = transforms.PiecewiseRationalQuadraticCouplingTransform(mask, _residual, BINS, "linear", 3.0)
    return [transforms.RandomPermutation(dim), transforms.LULinear(dim), coupling]


def _cdf(dim: int, _: int) -> list[nn.Module]:
    from nflows import transforms

    return [transforms.LULinear(dim), transforms.PiecewiseRationalQuadraticCDF([dim], BINS, "linear", 3.0)]


def _maf(dim: int, _: int) -> list[nn.Module]:
    from nflows import transforms

    layer = transforms.MaskedAffineAutoregressiveTransform(dim, HIDDEN, num_blocks=2)
    return [transforms.ReversePermutation(dim), layer]


def _autoregressive_splines(dim: int, _: int) -> list[nn.Module]:
    from nflows import transforms

    layer = transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
        dim, HIDDEN, num_bins=BINS, tails="linear", tail_bound=3.0, num_blocks=1
    )
    return [transforms.ReversePermutation(dim), layer]


def _freia(kind: str, options: Mapping[str, Any], dim: int) -> nn.Module:
    from FrEIA import framework, modules

    def network(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs))

    inn = framework.SequenceINN(dim)
    for _ in range(LAYERS):
        inn.append(getattr(modules, kind), subnet_constructor=network, **options)
    return inn


def _zuko(kind: str, dim: int, **options: Any) -> nn.Module:
    import zuko

    flow: nn.Module = getattr(zuko.flows, kind)(dim, transforms=LAYERS, **options)
    return flow


def _elements(dim: int) -> nn.Module:
    """Splines of trained parameters, one per feature."""
    import zuko
    from zuko.flows.gaussianization import ElementWiseTransform

    shapes = [(BINS,), (BINS,), (BINS - 1,)]
    spline = partial(ElementWiseTransform, dim, univariate=zuko.transforms.MonotonicRQSTransform, shapes=shapes)
    base = zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(dim), torch.ones(dim), buffer=True
    )
    return zuko.flows.Flow([spline() for _ in range(LAYERS)], base)


_PERMUTED: Mapping[str, Any] = {"permute_soft": True}
MODELS = (
    Model("normflows, AffineCouplingBlock", partial(_normflows, _nf_couplings), _likelihood),
    Model("normflows, MaskedAffineFlow", partial(_normflows, _nf_masked), _likelihood),
    Model("normflows, coupled splines and LU", partial(_normflows, _nf_splines), _likelihood),
    Model("normflows, autoregressive splines", partial(_normflows, _nf_autoregressive_splines), _likelihood),
    Model("normflows, MAF", partial(_normflows, _nf_maf), _pass),
    Model("normflows, MAF, networks too", partial(_normflows, _nf_maf), _pass, NETWORKS),
    Model("nflows, affine couplings", partial(_nflows, partial(_couplings, "AffineCouplingTransform")), _likelihood),
    Model(
        "nflows, additive couplings, diagonal base",
        partial(_nflows, partial(_couplings, "AdditiveCouplingTransform"), diagonal=True),
        _likelihood,
    ),
    Model("nflows, coupled splines and LU", partial(_nflows, _splines), _likelihood),
    Model("nflows, splines alone and LU", partial(_nflows, _cdf), _likelihood),
    Model("nflows, autoregressive splines", partial(_nflows, _autoregressive_splines), _likelihood),
    Model("nflows, MAF", partial(_nflows, _maf), _likelihood),
    Model("nflows, MAF, networks too", partial(_nflows, _maf), _likelihood, NETWORKS),
    Model("FrEIA, AllInOneBlock", partial(_freia, "AllInOneBlock", _PERMUTED), _pass),
    Model("FrEIA, GLOWCouplingBlock", partial(_freia, "GLOWCouplingBlock", {}), _pass),
    Model("FrEIA, RNVPCouplingBlock", partial(_freia, "RNVPCouplingBlock", {}), _pass),
    Model("FrEIA, NICECouplingBlock", partial(_freia, "NICECouplingBlock", {}), _pass),
    Model("FrEIA, AffineCouplingOneSided", partial(_freia, "AffineCouplingOneSided", {}), _pass),
    Model("zuko, NSF", partial(_zuko, "NSF"), _lazy),
    Model("zuko, NSF, networks too", partial(_zuko, "NSF"), _lazy, NETWORKS),
    Model("zuko, MAF", partial(_zuko, "MAF"), _lazy),
    Model("zuko, MAF, networks too", partial(_zuko, "MAF"), _lazy, NETWORKS),
    Model("zuko, RealNVP", partial(_zuko, "RealNVP"), _lazy),
    Model("zuko, splines alone", _elements, _lazy),
)
