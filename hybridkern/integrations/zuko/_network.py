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

from hybridkern._autocast import has_autocast
from hybridkern.integrations._layer import WIDE, Options
from hybridkern.integrations._made_operator import name_of
from hybridkern.integrations._network import network_reason
from hybridkern.integrations._seen import Seen
from hybridkern.integrations.zuko._masked import Layers, layers_of, masked_layers
from hybridkern.ops.masked_network.operator import ACTIVATIONS, has_fused_masked_network, planned

MASKS = "_hybridkern_masks"


def reason(network: Any, options: Options) -> str:
    """How :func:`run` calls it, in words for the report."""
    layers = layers_of(network) if options.networks and not options.precision and not options.memory else None
    if layers is None:
        return network_reason(network, options)
    served = _plan(layers) is not None and has_fused_masked_network(layers[0].weight)
    return "one operator" if served else "its weights times masks that are numbers"


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
    masks = _masks(owner, linear, x.dtype)
    plan = _plan(layers)
    if plan is None or has_autocast(x.device) or not has_fused_masked_network(x) or x.shape[-1] != masks[0].shape[1]:
        return _through(layers, list(masks), x)
    weights = tuple([layer._parameters["weight"] for layer in linear])
    biases = tuple([layer._parameters["bias"] for layer in linear])
    if x.ndim == 2:
        return planned(x, weights, biases, masks, *plan)
    out = planned(x.reshape(-1, x.shape[-1]), weights, biases, masks, *plan)
    return out.reshape(*x.shape[:-1], out.shape[-1])


def _plan(layers: Layers) -> tuple[tuple[int, ...], int] | None:
    """Codes and activation of the operator; ``None`` where it does not compute these layers."""
    codes: list[int] = []
    names: set[str | None] = set()
    for layer in layers:
        kind = type(layer)
        if kind is MaskedLinear:
            codes.append(0)
        elif kind is Residual:
            if not codes or codes[-1] % 2:  # what it adds is not the sums of a layer
                return None
            names.add(name_of(layer[1]))
            codes += [1, 2 * len(codes)]
        elif codes[-1] % 2:
            return None
        else:
            names.add(name_of(layer))
            codes[-1] += 1
    if len(names) > 1 or None in names:
        return None
    return tuple(codes), ACTIVATIONS.index(names.pop() or "none") if names else 0


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
    kept: Any = owner.__dict__.get(MASKS)
    if kept is None or kept[0] is not dtype or not kept[1].holds(given):
        with torch.inference_mode(False):
            kept = owner.__dict__[MASKS] = (dtype, Seen(given), tuple(mask.to(dtype) for mask in given))
    masks: tuple[Tensor, ...] = kept[2]
    return masks
