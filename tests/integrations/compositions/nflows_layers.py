"""Every transform of nflows, cheap, on vectors of 6 features and on images of 4 x 4 x 4; models around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from nflows import distributions, flows, transforms
from nflows.nn import nets
from nflows.transforms import nonlinearities
from torch import nn

from tests.integrations.compositions.compare import Call
from tests.integrations.compositions.networks import NETWORKS, with_context

DIM, CONTEXT = 6, 2
IMAGE = (4, 4, 4)
Make = Callable[[str], nn.Module]
MASKS = ([1, 0, 1, 0, 1, 0], [0, 0, 0, 1, 1, 1], [1, 1, 0, 1, 0, 0], [0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0])


def _network(name: str, images: bool) -> Callable[[int, int], nn.Module]:
    def make(inputs: int, outputs: int) -> nn.Module:
        if name == "glow":
            if images:
                return nets.ConvResidualNet(inputs, outputs, hidden_channels=4, num_blocks=1, activation=torch.tanh)
            return nets.ResidualNet(inputs, outputs, 4, context_features=None, num_blocks=1, activation=torch.tanh)
        return with_context(NETWORKS[name](inputs, outputs, images))

    return make


def _coupling(kind: Any, mask: list[int], images: bool = False, **options: Any) -> Make:
    return lambda name: kind(mask, _network(name, images), **options)


def _conditioned(_: str) -> nn.Module:
    def network(inputs: int, outputs: int) -> nn.Module:
        return nets.ResidualNet(inputs, outputs, 4, context_features=CONTEXT, num_blocks=1, activation=torch.tanh)

    return transforms.AffineCouplingTransform(MASKS[2], network)


def _conditioned_spline(_: str) -> nn.Module:
    def network(inputs: int, outputs: int) -> nn.Module:
        return nets.ResidualNet(inputs, outputs, 4, context_features=CONTEXT, num_blocks=1, activation=torch.tanh)

    return SPLINES(MASKS[1], network, 3, "linear", 2.0)


def _in_a_box(layer: nn.Module) -> nn.Module:
    return transforms.CompositeTransform([transforms.Sigmoid(), layer, transforms.Logit()])


def _masked(kind: Any, **options: Any) -> Make:
    return lambda _: kind(features=DIM, hidden_features=6, num_blocks=1, **options)


SPLINE = {"tails": "linear", "num_bins": 3}
SPLINES = transforms.PiecewiseRationalQuadraticCouplingTransform
CDF = transforms.PiecewiseRationalQuadraticCDF
MAF = transforms.MaskedAffineAutoregressiveTransform
SPLINE_MAF = transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform
AFFINE, ADDITIVE = transforms.AffineCouplingTransform, transforms.AdditiveCouplingTransform
COUPLINGS: Mapping[str, Make] = {
    **{f"affine {mask}": _coupling(AFFINE, mask) for mask in MASKS},
    "additive": _coupling(ADDITIVE, MASKS[0]),
    "additive halves": _coupling(ADDITIVE, MASKS[1]),
    "affine all": _coupling(AFFINE, [1] * DIM),
    "affine none": _coupling(AFFINE, [0] * DIM),
    "conditioned": _conditioned,
    "unconditional": _coupling(AFFINE, MASKS[2], unconditional_transform=lambda features: transforms.ActNorm(features)),
    "unconditional linear": _coupling(
        AFFINE, MASKS[0], unconditional_transform=lambda features: transforms.PointwiseAffineTransform(0.1, 2.0)
    ),
    "inverted": lambda name: transforms.InverseTransform(AFFINE(MASKS[1], _network(name, False))),
    "sequence": lambda name: transforms.CompositeTransform(
        [AFFINE(MASKS[1], _network(name, False)), transforms.ReversePermutation(DIM)]
    ),
    **{f"spline {mask}": _coupling(SPLINES, mask, **SPLINE) for mask in MASKS[:4]},
    "spline all": _coupling(SPLINES, [1] * DIM, **SPLINE),
    "spline none": _coupling(SPLINES, [0] * DIM, **SPLINE),
    "spline unconditional": _coupling(SPLINES, MASKS[0], apply_unconditional_transform=True, **SPLINE),
    "spline minima": _coupling(SPLINES, MASKS[3], min_bin_width=0.1, min_bin_height=0.0, min_derivative=0.2, **SPLINE),
    "spline box": _coupling(SPLINES, MASKS[1], num_bins=3),
    "spline in a box": lambda name: _in_a_box(SPLINES(MASKS[0], _network(name, False), 3)),
    "spline conditioned": _conditioned_spline,
    "spline cdf": lambda _: CDF([DIM], 3, "linear"),
    "spline cdf in a box": lambda _: _in_a_box(CDF(DIM, 3, identity_init=True)),
    "maf": _masked(MAF),
    "maf counting": _masked(MAF, use_batch_norm=True, dropout_probability=0.3),
    "maf conditioned": _masked(MAF, context_features=CONTEXT, activation=torch.tanh),
    "maf random": _masked(MAF, use_residual_blocks=False, random_mask=True),
    "spline maf": _masked(SPLINE_MAF, **SPLINE),
    "spline maf conditioned": _masked(SPLINE_MAF, context_features=CONTEXT, **SPLINE),
    "spline maf in a box": lambda _: _in_a_box(_masked(SPLINE_MAF, num_bins=3)("")),
    "lu": lambda _: transforms.LULinear(DIM),
    "lu cached": lambda _: transforms.LULinear(DIM, using_cache=True),
}
OTHERS: Mapping[str, Make] = {
    "actnorm": lambda _: transforms.ActNorm(DIM),
    "batch norm": lambda _: transforms.BatchNorm(DIM),
    "identity": lambda _: transforms.IdentityTransform(),
    "point affine": lambda _: transforms.PointwiseAffineTransform(0.3, 2.0),
    "affine transform": lambda _: transforms.AffineTransform(torch.ones(DIM), torch.full((DIM,), 0.5)),
    "permutation": lambda _: transforms.Permutation(torch.tensor([2, 0, 1, 5, 4, 3])),
    "random permutation": lambda _: transforms.RandomPermutation(DIM),
    "reverse permutation": lambda _: transforms.ReversePermutation(DIM),
    "naive linear": lambda _: transforms.NaiveLinear(DIM),
    "qr": lambda _: transforms.QRLinear(DIM, 2),
    "svd": lambda _: transforms.SVDLinear(DIM, 2),
    "householder": lambda _: transforms.HouseholderSequence(DIM, 2),
    "leaky relu": lambda _: transforms.LeakyReLU(),
    "log tanh": lambda _: transforms.LogTanh(),
    "tanh": lambda _: transforms.Tanh(),
    "sigmoid": lambda _: transforms.Sigmoid(),
    "logit": lambda _: transforms.Logit(),
    "gated": lambda _: transforms.GatedLinearUnit(),
    "cauchy": lambda _: nonlinearities.CauchyCDF(),
    "linear cdf": lambda _: transforms.PiecewiseLinearCDF([DIM], 3, "linear"),
    "quadratic cdf": lambda _: transforms.PiecewiseQuadraticCDF([DIM], 3, "linear"),
    "cubic cdf": lambda _: transforms.PiecewiseCubicCDF([DIM], 3, "linear"),
    "squashed cdf": lambda _: transforms.CompositeCDFTransform(
        transforms.Sigmoid(), transforms.PiecewiseLinearCDF([DIM], 3)
    ),
    "quadratic maf": lambda _: transforms.MaskedPiecewiseQuadraticAutoregressiveTransform(
        features=DIM, hidden_features=6, num_blocks=1, **SPLINE
    ),
    "quadratic coupling": _coupling(transforms.PiecewiseQuadraticCouplingTransform, MASKS[1], **SPLINE),
    "cubic coupling": _coupling(transforms.PiecewiseCubicCouplingTransform, MASKS[2], **SPLINE),
    "linear coupling": _coupling(transforms.PiecewiseLinearCouplingTransform, MASKS[0], **SPLINE),
    "squeeze": lambda _: transforms.SqueezeTransform(),
}
IMAGE_COUPLINGS: Mapping[str, Make] = {
    "affine": _coupling(AFFINE, [0, 0, 1, 1], images=True),
    "affine turns": _coupling(AFFINE, [1, 0, 1, 0], images=True),
    "affine any": _coupling(AFFINE, [0, 1, 1, 0], images=True),
    "additive": _coupling(ADDITIVE, [1, 1, 0, 0], images=True),
    "uneven": _coupling(AFFINE, [1, 0, 0, 0], images=True),
    "spline turns": _coupling(SPLINES, [0, 1, 0, 1], images=True, **SPLINE),
    "spline any": _coupling(SPLINES, [0, 1, 1, 0], images=True, **SPLINE),
    "spline unconditional": _coupling(
        SPLINES, [0, 0, 1, 1], images=True, apply_unconditional_transform=True, img_shape=[4, 4], **SPLINE
    ),
    "spline cdf": lambda _: CDF(list(IMAGE), 3, "linear"),
}
IMAGE_OTHERS: Mapping[str, Make] = {
    "actnorm": lambda _: transforms.ActNorm(4),
    "conv": lambda _: transforms.OneByOneConvolution(4),
    "conv cached": lambda _: transforms.OneByOneConvolution(4, using_cache=True),
    "permutation": lambda _: transforms.RandomPermutation(4),
    "rows": lambda _: transforms.ReversePermutation(4, dim=2),
    "squeezed": lambda _: transforms.CompositeTransform(
        [transforms.SqueezeTransform(), transforms.InverseTransform(transforms.SqueezeTransform())]
    ),
    "leaky relu": lambda _: transforms.LeakyReLU(),
    "sigmoid": lambda _: transforms.Sigmoid(),
}


def _standard(layers: Sequence[nn.Module], shape: tuple[int, ...]) -> nn.Module:
    return flows.Flow(transforms.CompositeTransform(layers), distributions.StandardNormal(shape))


def _diagonal(layers: Sequence[nn.Module], shape: tuple[int, ...]) -> nn.Module:
    return flows.Flow(transforms.CompositeTransform(layers), distributions.DiagonalNormal(shape))


def _conditional(layers: Sequence[nn.Module], shape: tuple[int, ...]) -> nn.Module:
    size = 2 * int(torch.Size(shape).numel())
    base = distributions.ConditionalDiagonalNormal(shape, nn.Linear(CONTEXT, size))
    return flows.Flow(transforms.CompositeTransform(layers), base)


def _scales(layers: Sequence[nn.Module], shape: tuple[int, ...]) -> nn.Module:
    multiscale = transforms.MultiscaleCompositeTransform(2)
    hidden = multiscale.add_transform(transforms.CompositeTransform(layers), shape)
    multiscale.add_transform(transforms.IdentityTransform(), hidden)
    return flows.Flow(multiscale, distributions.StandardNormal([int(torch.Size(shape).numel())]))


MODELS: dict[str, Any] = {
    "standard": _standard,
    "diagonal": _diagonal,
    "conditional": _conditional,
    "scales": _scales,
}
CALLS: Sequence[tuple[str, Call]] = (
    ("log_prob", lambda m, x, c: m.log_prob(x, c)),
    ("transform", lambda m, x, c: m._transform(x, c)),
    ("inverse", lambda m, x, c: m._transform.inverse(x, c)),
    ("inverse of flat", lambda m, x, c: m._transform.inverse(x.flatten(1), c)),
    ("inference log_prob", lambda m, x, c: m.log_prob(x, c)),
    ("no_grad noise", lambda m, x, c: m.transform_to_noise(x, c)),
    ("sample", lambda m, x, c: m.sample(2, c)),
    ("sample_and_log_prob", lambda m, x, c: m.sample_and_log_prob(2, c)),
)
