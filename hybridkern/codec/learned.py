"""Networks of an integer flow that learn the steps of their integers while they are trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from hybridkern.codec.codec import as_flow, as_images, enlarged
from hybridkern.codec.stages import QuantizedNet
from hybridkern.flows import IDF
from hybridkern.flows._integer_levels import IntegerLevels
from hybridkern.flows._multi_scale_prior import MultiScalePrior
from hybridkern.nets import Scaled
from hybridkern.transforms import QuarterCoupling, RoundingCoupling

_MOST_IMAGES = 64  # that steps are chosen from


def learn_steps(model: nn.Module, images: Tensor | np.ndarray | None = None) -> nn.Module:
    """Has the networks of an integer flow compute as :func:`hybridkern.codec.quantize` will have them compute.

    Train the model as it is, call this, and train it on for a while: weights, and the steps of weights and activations,
    adapt to 8 bits. ``quantize`` then takes the learned steps.

    Args:
        model: as for ``quantize``, without a ``nets.DenseNet``. Its networks are replaced, in place; parameters keep
            their values, and there are new ones, which an optimizer that was built before does not know.
        images: some of the data, from which the first steps are chosen; the first 64 are used. ``None``: networks are
            replaced, and compute as before until they are :func:`calibrated <calibrate>`.

    Returns:
        ``model``.

    Raises:
        TypeError, ValueError: another model, a network that has no such form, or other images.
    """
    flow = as_flow(model)
    if not quantized_nets(flow):
        _replace(flow)
    if images is not None:
        calibrate(flow, as_images(images, flow.shape))
    return model


def quantized_nets(flow: nn.Module) -> list[QuantizedNet]:
    """The networks of a model that learn steps."""
    return [module for module in flow.modules() if isinstance(module, QuantizedNet)]


@torch.no_grad()
def calibrate(flow: IDF, images: Tensor) -> None:
    """Chooses the steps of networks that :func:`learn_steps` made, one after the other, each on quantized inputs.

    Args:
        flow: holds such networks.
        images: integers ``(N, C, H, W)``; the first 64 are used.

    Raises:
        ValueError: there are none.
    """
    if not len(images):
        raise ValueError("images: got none, expected some of the data")
    weight = next(flow.parameters())
    x = enlarged(images[:_MOST_IMAGES], flow.shape).to(weight.device, weight.dtype)
    hooks = [net.register_forward_pre_hook(lambda net, given: net.calibrate(*given)) for net in quantized_nets(flow)]
    try:
        flow.base.log_prob(flow.couplings(x))
    finally:
        for hook in hooks:
            hook.remove()


def _replace(flow: IDF) -> None:
    """Makes all networks before it puts one in place: an error leaves the model as it is."""
    center, scale = flow._unscaled
    assert isinstance(flow.base, MultiScalePrior)
    made: list[tuple[nn.Module, str, QuantizedNet]] = []
    for owner, name, net in _networks(flow):
        if isinstance(net, Scaled):
            made.append((net, "net", QuantizedNet(net.net, center, scale)))
        else:
            seen = (center, scale) if owner is flow.base.nets else (0.0, 1.0)
            made.append((owner, name, QuantizedNet(net, *seen)))
    for owner, name, net in made:
        setattr(owner, name, net)


def _networks(flow: IDF) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """What holds each network, under which name, and the network."""
    assert isinstance(flow.couplings, IntegerLevels) and isinstance(flow.base, MultiScalePrior)
    for level in flow.couplings.levels:
        for coupling in cast("nn.ModuleList", level):
            if isinstance(coupling, QuarterCoupling):
                yield coupling, "net", coupling.net
            else:
                nets = cast("RoundingCoupling", coupling).nets
                yield from ((nets, name, net) for name, net in nets.named_children())
    yield from ((flow.base.nets, name, net) for name, net in flow.base.nets.named_children())
