"""Masked networks of zuko without calls of their modules: weights times masks that are numbers already.

The library multiplies by boolean masks, which are converted number by number, forward and backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zuko.nn import MaskedLinear, Residual

from hybridkern.integrations._layer import WIDE, Options
from hybridkern.integrations._network import network_reason
from hybridkern.integrations.zuko._masked import Layers, layers_of, masked_layers, state_of

MASKS = "_hybridkern_masks"


def reason(network: Any, options: Options) -> str:
    """How :func:`run` calls it, in words for the report."""
    read = options.networks and not options.precision and not options.memory and layers_of(network) is not None
    return "its weights times masks that are numbers" if read else network_reason(network, options)


def run(owner: Any, network: Any, x: Tensor) -> Tensor:
    """``network(x)``.

    Args:
        owner: the layer that it belongs to, which remembers the masks as numbers.
        network: the network.
        x: ``(..., inputs)``.
    """
    if torch.compiler.is_compiling() or x.dtype not in WIDE:
        return network(x)
    layers = layers_of(network)
    if layers is None:
        return network(x)
    linear = masked_layers(layers)
    if x.dtype is not linear[0].weight.dtype:
        return network(x)  # which says what is wrong
    return _through(layers, list(_masks(owner, linear, x.dtype)), x)


def _through(layers: Layers, masks: list[Tensor], x: Tensor) -> Tensor:
    """``x`` through the layers, which take their masks off the front of the list."""
    is_new = False  # whether nobody else has x
    for layer in layers:
        kind = type(layer)
        if kind is MaskedLinear:
            own = layer._parameters
            x = F.linear(x, own["weight"] * masks.pop(0), own["bias"])
        elif kind is Residual:
            x = x + _through(list(layer), masks, x)
        elif kind is nn.ReLU:
            x = torch.relu_(x) if is_new else torch.relu(x)
        else:
            x = layer(x)
        is_new = kind is MaskedLinear
    return x


def _masks(owner: Any, linear: Sequence[MaskedLinear], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The masks in the dtype of the weights."""
    given = [layer.mask for layer in linear]
    state = (*state_of(given), dtype)
    kept: Any = owner.__dict__.get(MASKS)
    if kept is None or kept[0] != state:
        with torch.inference_mode(False):
            kept = owner.__dict__[MASKS] = (state, tuple(mask.to(dtype) for mask in given), given)
    masks: tuple[Tensor, ...] = kept[1]
    return masks
