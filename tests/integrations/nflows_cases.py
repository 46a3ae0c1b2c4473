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
}
