"""What has numbers for each dimension takes that many: others would be broadcast, or left out, without a word."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from hybridkern import distributions, flows, transforms
from hybridkern.flows._latents import latent_shapes
from hybridkern.flows._multi_scale_prior import MultiScalePrior
from hybridkern.flows._slices import Slices
from hybridkern.hybrid import heads
from hybridkern.nets import ConvNet

BASES: dict[str, Callable[[int], distributions.Distribution]] = {
    "standard": distributions.DiagonalGaussian,
    "trained": lambda dim: distributions.DiagonalGaussian(dim, trainable=True),
    "logistic": distributions.DiscretizedLogistic,
    "mixture": distributions.DiscretizedLogisticMixture,
    "classes": lambda dim: distributions.ClassGaussians(dim, 2),
}
LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "actnorm": transforms.ActNorm,
    "permutation": transforms.Permutation,
    "linear": transforms.LULinear,
    "planar": transforms.PlanarMap,
    "categorical": lambda dim: heads.Categorical(dim, 3),
    "gaussian": heads.Gaussian,
}


@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("name", [*BASES, *LAYERS])
def test_another_width_is_refused(name: str, dim: int) -> None:
    module = (BASES | LAYERS)[name](dim)
    for shape in ((5, dim + 1), (5, 2 * dim), (dim,), (5, 1) if dim > 1 else (5, 4)):
        with pytest.raises(ValueError, match=r"[xz]: got shape \(.*\), expected \(B, "):
            module(torch.zeros(shape))
        if name in ("actnorm", "permutation", "linear", "planar"):
            with pytest.raises(ValueError, match=r"x: got shape \(.*\), expected \(B, "):
                module(torch.zeros(shape), inverse=True)
    module(torch.zeros(5, dim))


def test_another_width_of_images_is_refused() -> None:
    shapes = latent_shapes((1, 4, 4), 1)
    prior = MultiScalePrior(Slices(shapes), distributions.DiscretizedLogistic(16), ConvNet)
    with pytest.raises(ValueError, match=r"x: got shape \(2, 15\), expected \(B, 16\)"):
        prior(torch.zeros(2, 15))


def test_layers_of_another_width_than_the_flow() -> None:
    for layer in (transforms.ActNorm(1), transforms.Permutation(2)):
        with pytest.raises(ValueError, match=r"x: got shape \(5, 3\), expected \(B, "):
            flows.Compose(3, [layer]).log_prob(torch.zeros(5, 3))
