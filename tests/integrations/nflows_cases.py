"""Models of nflows: ``SimpleRealNVP``, couplings with every kind of mask, and the Glow of its image experiments."""

from __future__ import annotations

from typing import Any

import torch
from nflows import distributions, flows, transforms
from nflows.nn import nets
from nflows.transforms import SqueezeTransform
from nflows.utils import torchutils
from torch import Tensor, nn

from tests.integrations.cases import Case, Latents


def _to_latent(model: Any, x: Tensor, *context: Tensor) -> tuple[Latents, Tensor]:
    z, log_det = model._transform(x, *context)
    return [z], log_det


def _case(build: Any, shape: tuple[int, ...], context: int = 0) -> Case:
    return Case(
        build,
        shape,
        _to_latent,
        lambda m, latents, *given: m._transform.inverse(*latents, *given),
        lambda m, x, *given: m.log_prob(x, *given),
        # the library samples in float32 only
        None if context else lambda m, n: [m.sample(n)],
        context,
    )


def real_nvp(additive: bool = False) -> nn.Module:
    """The library's own class."""
    return flows.SimpleRealNVP(6, 16, 4, 1, use_volume_preserving=additive)


def _residual(inputs: int, outputs: int) -> nn.Module:
    return nets.ResidualNet(inputs, outputs, hidden_features=16, num_blocks=1)


def masks(mask: Any, permutation: Any) -> nn.Module:
    """Couplings with one mask and a permutation between them."""
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [transforms.AffineCouplingTransform(mask, _residual), permutation()]
    size = len(mask)
    return flows.Flow(transforms.CompositeTransform(layers), distributions.StandardNormal([size]))


def conditional() -> nn.Module:
    """Couplings and a base that depend on a context."""

    def network(inputs: int, outputs: int) -> nn.Module:
        return nets.ResidualNet(inputs, outputs, hidden_features=16, context_features=4, num_blocks=1)

    mask = torchutils.create_alternating_binary_mask(6)
    layers = [transforms.AffineCouplingTransform(mask, network), transforms.ActNorm(6)]
    layers += [transforms.AffineCouplingTransform(1 - mask.int(), network)]
    base = distributions.ConditionalDiagonalNormal([6], nn.Linear(4, 12))
    return flows.Flow(transforms.CompositeTransform(layers), base)


def diagonal() -> nn.Module:
    """A base with parameters, and an affine map of the features that condition."""
    mask = torchutils.create_mid_split_binary_mask(6)
    layer = transforms.AffineCouplingTransform(mask, _residual, lambda features: transforms.ActNorm(features))
    return flows.Flow(layer, distributions.DiagonalNormal([6]))


def _convolutional(inputs: int, outputs: int) -> nn.Module:
    return nets.ConvResidualNet(inputs, outputs, hidden_channels=8, num_blocks=1)


def glow() -> nn.Module:
    """Two levels of squeeze, actnorm, 1x1 convolution and coupling, as in the experiments on images."""
    multiscale = transforms.MultiscaleCompositeTransform(2)
    shape: Any = (3, 8, 8)
    for _ in range(2):
        squeeze = SqueezeTransform()
        channels, height, width = squeeze.get_output_shape(*shape)
        layers: list[nn.Module] = [squeeze]
        for _ in range(2):
            mask = torchutils.create_mid_split_binary_mask(channels)
            layers += [transforms.ActNorm(channels), transforms.OneByOneConvolution(channels)]
            layers += [transforms.AffineCouplingTransform(mask, _convolutional)]
        shape = multiscale.add_transform(transforms.CompositeTransform(layers), (channels, height, width))
    return flows.Flow(multiscale, distributions.StandardNormal([192]))


def additive_images() -> nn.Module:
    """Additive couplings on images with alternating channels."""
    mask = torchutils.create_alternating_binary_mask(4)
    layers = [transforms.AdditiveCouplingTransform(m, _convolutional) for m in (mask, 1 - mask.int())]
    return flows.Flow(transforms.CompositeTransform(layers), distributions.StandardNormal([4, 4, 4]))


def spline(tails: str | None = "linear", **options: Any) -> nn.Module:
    """Couplings by splines, and linear layers between; a box lies between a sigmoid and its inverse."""
    layers: list[nn.Module] = []
    for i in range(2):
        mask = torchutils.create_alternating_binary_mask(5, even=i == 0)
        layers.append(
            transforms.PiecewiseRationalQuadraticCouplingTransform(
                mask, _residual, 4, tails, 1.0 if tails is None else 2.0, **options
            )
        )
        layers += [] if tails is None else [transforms.RandomPermutation(5), transforms.LULinear(5)]
    if tails is None:
        layers = [transforms.Sigmoid(), *layers, transforms.PiecewiseRationalQuadraticCDF([5], 3), transforms.Logit()]
    return flows.Flow(transforms.CompositeTransform(layers), distributions.StandardNormal([5]))


def spline_images() -> nn.Module:
    """Splines of images, the channels that condition by parameters of their own."""
    mask = torchutils.create_mid_split_binary_mask(4)
    layers = [
        transforms.PiecewiseRationalQuadraticCouplingTransform(
            m, _convolutional, 3, "linear", 2.0, apply_unconditional_transform=True, img_shape=[4, 4]
        )
        for m in (mask, 1 - mask.int())
    ]
    return flows.Flow(transforms.CompositeTransform(layers), distributions.StandardNormal([4, 4, 4]))


def masked(kind: str, context: int | None = None, **options: Any) -> nn.Module:
    """Masked autoregressive layers in the order of the features and in reverse."""
    layers: list[nn.Module] = []
    for _ in range(2):
        if kind == "affine":
            layer: nn.Module = transforms.MaskedAffineAutoregressiveTransform(5, 12, context, num_blocks=1, **options)
        else:
            layer = transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
                5, 12, context, num_bins=4, tails="linear", tail_bound=2.0, num_blocks=1, **options
            )
        layers += [layer, transforms.ReversePermutation(5)]
    return flows.Flow(transforms.CompositeTransform(layers), distributions.StandardNormal([5]))


CASES = {
    "real nvp": _case(real_nvp, (6,)),
    "real nvp additive": _case(lambda: real_nvp(additive=True), (6,)),
    "random mask": _case(lambda: masks([1, 1, 0, 1, 0, 0, 1], lambda: transforms.RandomPermutation(7)), (7,)),
    "halves": _case(lambda: masks([0, 0, 0, 1, 1], lambda: transforms.ReversePermutation(5)), (5,)),
    "halves reversed": _case(
        lambda: masks([1, 1, 0, 0], lambda: transforms.Permutation(torch.tensor([2, 0, 3, 1]))), (4,)
    ),
    "conditional": _case(conditional, (6,), context=4),
    "diagonal": Case(
        diagonal,
        (6,),
        *(_case(diagonal, (6,)).to_latent, _case(diagonal, (6,)).to_data),
        log_prob=lambda m, x: m.log_prob(x),
    ),
    "glow": _case(glow, (3, 8, 8)),
    "additive images": _case(additive_images, (4, 4, 4)),
    "spline": _case(spline, (5,)),
    "spline unconditional": _case(lambda: spline(apply_unconditional_transform=True, min_derivative=0.01), (5,)),
    "spline box": _case(lambda: spline(None), (5,)),
    "spline images": _case(spline_images, (4, 4, 4)),
    "maf": _case(lambda: masked("affine"), (5,)),
    "maf conditional": _case(lambda: masked("affine", 4), (5,), context=4),
    "maf random": _case(lambda: masked("affine", use_residual_blocks=False, random_mask=True), (5,)),
    "maf spline": _case(lambda: masked("spline"), (5,)),
    "maf spline conditional": _case(lambda: masked("spline", 4, activation=torch.tanh), (5,), context=4),
}
