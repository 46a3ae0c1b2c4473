"""Spline flows and masked autoregressive flows on vectors, as users of nflows and normflows build them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

Loss = Any
BINS, BOUND, BLOCKS = 8, 3.0, 2


def _loss(model: Any, x: Tensor) -> Tensor:
    loss: Tensor = -model.log_prob(x).mean()
    return loss


def nflows_nsf(dim: int, hidden: int, layers: int, unconditional: bool = True) -> tuple[nn.Module, Loss]:
    """Neural spline flow of couplings, as in its authors' experiments: splines of their own for the features that
    condition (``unconditional``), and a permutation and ``LULinear`` between.
    """
    from nflows import distributions, flows, transforms
    from nflows.nn import nets
    from nflows.utils import torchutils

    def network(inputs: int, outputs: int) -> nn.Module:
        return nets.ResidualNet(inputs, outputs, hidden_features=hidden, num_blocks=BLOCKS)

    parts: list[nn.Module] = []
    for i in range(layers):
        mask = torchutils.create_alternating_binary_mask(dim, even=i % 2 == 0)
        parts += [transforms.RandomPermutation(dim), transforms.LULinear(dim)]
        parts.append(
            transforms.PiecewiseRationalQuadraticCouplingTransform(
                mask, network, BINS, "linear", BOUND, apply_unconditional_transform=unconditional
            )
        )
    model = flows.Flow(transforms.CompositeTransform(parts), distributions.StandardNormal([dim]))
    return _moved(model), _loss


def normflows_nsf(dim: int, hidden: int, layers: int) -> tuple[nn.Module, Loss]:
    """Neural spline flow of its example: spline couplings and ``LULinearPermute``."""
    import normflows as nf

    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nf.flows.CoupledRationalQuadraticSpline(dim, BLOCKS, hidden), nf.flows.LULinearPermute(dim)]
    return _moved(nf.NormalizingFlow(nf.distributions.DiagGaussian(dim), parts)), _loss


def nflows_maf(dim: int, hidden: int, layers: int) -> tuple[nn.Module, Loss]:
    """``MaskedAutoregressiveFlow``."""
    from nflows.flows import MaskedAutoregressiveFlow

    return _moved(MaskedAutoregressiveFlow(dim, hidden, layers, BLOCKS)), _loss


def normflows_maf(dim: int, hidden: int, layers: int) -> tuple[nn.Module, Loss]:
    """``MaskedAffineAutoregressive`` and permutations; its log-probability takes a pass through the network per number.

    So that a step is one pass a layer, what is differentiated is the mean square of what the layers' ``forward`` gives,
    less its log-determinant.
    """
    import normflows as nf

    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nf.flows.MaskedAffineAutoregressive(dim, hidden, num_blocks=BLOCKS), nf.flows.Permute(dim, "swap")]

    def loss(model: Any, x: Tensor) -> Tensor:
        z, log_det = model.forward_and_log_det(x)
        value: Tensor = (0.5 * z.square().sum(1) - log_det).mean()
        return value

    return _moved(nf.NormalizingFlow(nf.distributions.DiagGaussian(dim), parts)), loss


def _moved(model: nn.Module) -> nn.Module:
    """With parameters as after some training: the libraries start near the identity."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    return model


def sample(model: Any, count: int) -> object:
    """Without gradients."""
    with torch.no_grad():
        return model.sample(count)
