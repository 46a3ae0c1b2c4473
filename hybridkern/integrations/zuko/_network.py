"""Masked networks of zuko as one function: weights times mask by fast products, and a backward pass of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zuko.nn import MaskedLinear

from hybridkern._values import transformed
from hybridkern.integrations._layer import WIDE, Options
from hybridkern.integrations._network import network_reason
from hybridkern.integrations.zuko._masked import Layers, layers_of, masked_layers, state_of
from hybridkern.ops._autograd import by_formulas, pulled_back

MASKS = "_hybridkern_masks"
aten = torch.ops.aten
# From an activation's output and the gradient of that to the gradient of its input.
_DERIVATIVES: dict[type[nn.Module], Callable[[Tensor, Tensor], Tensor]] = {
    nn.ReLU: lambda grad, h: aten.threshold_backward(grad, h, 0),
    nn.Tanh: aten.tanh_backward,
    nn.Sigmoid: aten.sigmoid_backward,
}


def is_chain(layers: Layers | None) -> bool:
    """Whether layers and activations take turns, and these have a derivative in terms of what they return."""
    if layers is None or len(layers) % 2 == 0:
        return False
    hidden = all(type(layer) in _DERIVATIVES for layer in layers[1::2])
    return hidden and all(type(layer) is MaskedLinear for layer in layers[::2])


def reason(network: Any, options: Options) -> str:
    """How :func:`run` calls it, in words for the report."""
    fused = options.networks and not options.precision and not options.memory and is_chain(layers_of(network))
    return "one function, with a backward pass of its own" if fused else network_reason(network, options)


def run(owner: Any, network: Any, x: Tensor) -> Tensor:
    """``network(x)``.

    Args:
        owner: the layer that it belongs to, which remembers the masks as numbers.
        network: the network.
        x: ``(..., inputs)``.
    """
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type) or x.dtype not in WIDE:
        return network(x)
    layers = layers_of(network)
    if layers is None or not is_chain(layers):
        return network(x)
    linear = masked_layers(layers)
    weights = [layer.weight for layer in linear]
    if x.shape[-1] != weights[0].shape[1] or any(w.dtype is not x.dtype or w.device != x.device for w in weights):
        return network(x)
    values = [value for layer in linear for value in (layer.weight, layer.bias)]
    kinds = tuple(type(layer) for layer in layers[1::2])
    masks = _masks(owner, linear, x.dtype)
    if transformed():
        return _formula(kinds, masks, x, *values)
    flat = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
    out: Tensor = _MaskedChain.apply(kinds, masks, flat, *values)
    return out if x.ndim == 2 else out.reshape(*x.shape[:-1], out.shape[-1])


def _masks(owner: Any, linear: Sequence[MaskedLinear], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The masks in the dtype of the weights."""
    state = (*state_of([layer.mask for layer in linear]), dtype)
    kept: Any = owner.__dict__.get(MASKS)
    if kept is None or kept[0] != state:
        with torch.inference_mode(False):
            kept = owner.__dict__[MASKS] = (state, tuple(layer.mask.to(dtype) for layer in linear))
    masks: tuple[Tensor, ...] = kept[1]
    return masks


def _formula(kinds: Sequence[type[nn.Module]], masks: Sequence[Tensor], x: Tensor, *values: Tensor) -> Tensor:
    """The network in plain PyTorch."""
    for i, (weight, bias) in enumerate(zip(values[::2], values[1::2], strict=True)):
        x = F.linear(x, weight * masks[i], bias)
        if i < len(kinds):
            x = kinds[i]()(x)
    return x


class _MaskedChain(torch.autograd.Function):
    """Keeps what the activations returned and the masked weights."""

    @staticmethod
    def forward(ctx: Any, kinds: Sequence[type[nn.Module]], masks: Sequence[Tensor], x: Tensor, *values: Tensor) -> Any:
        hidden, weights = [x], []
        for i, (weight, bias) in enumerate(zip(values[::2], values[1::2], strict=True)):
            weights.append(weight * masks[i])
            out = torch.addmm(bias, hidden[-1], weights[-1].T)
            hidden.append(_ACTIVATIONS[kinds[i]](out) if i < len(kinds) else out)
        ctx.kinds, ctx.masks = kinds, masks
        ctx.save_for_backward(*hidden[:-1], *weights, *values)
        return hidden[-1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.masks)
        saved = ctx.saved_tensors
        hidden, weights, values = saved[:count], saved[count : 2 * count], saved[2 * count :]
        if by_formulas():
            given = (hidden[0], *values)
            return None, None, *pulled_back(lambda *v: (_formula(ctx.kinds, ctx.masks, *v),), given, (grad,))
        found: list[Tensor | None] = []
        needs = ctx.needs_input_grad[2:]
        for i in reversed(range(count)):
            found.append(grad.sum(0) if needs[2 + 2 * i] else None)
            found.append((grad.T @ hidden[i]).mul_(ctx.masks[i]) if needs[1 + 2 * i] else None)
            if i or needs[0]:
                grad = grad @ weights[i]
            if i:
                grad = _DERIVATIVES[ctx.kinds[i - 1]](grad, hidden[i])
        return None, None, grad if needs[0] else None, *reversed(found)


_ACTIVATIONS: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.ReLU: torch.relu_,
    nn.Tanh: torch.tanh_,
    nn.Sigmoid: torch.sigmoid_,
}
