"""Masked networks of zuko, taken apart where their weights may be read instead of the modules being called."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from zuko.nn import MLP, LayerNorm, Linear, MaskedLinear, MaskedMLP, Residual

from hybridkern.integrations._layer import has_hooks

# Activations that work number by number, hold nothing and draw nothing.
ELEMENTWISE = {
    *(nn.ReLU, nn.ELU, nn.CELU, nn.SELU, nn.LeakyReLU, nn.Softplus, nn.Tanh, nn.Sigmoid, nn.SiLU, nn.GELU, nn.Mish),
    *(nn.Identity, nn.LogSigmoid, nn.Softsign, nn.Hardtanh, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Tanhshrink),
}
_PURE = {*ELEMENTWISE, MLP, MaskedMLP, Residual, Linear, MaskedLinear, LayerNorm, nn.Sequential, nn.Linear}
Layers = list[Any]


def is_pure(network: Any) -> bool:
    """Whether nobody can tell how often it was called: it draws nothing, counts nothing and nobody watches."""
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    return bool(modules) and all(type(module) in _PURE for module in modules) and not has_hooks(modules)


def layers_of(network: Any) -> Layers | None:
    """Its masked layers, residual blocks and activations; ``None`` where someone watches or changed one of them."""
    if type(network) is not MaskedMLP or has_hooks(network.modules()):
        return None
    layers = list(network)
    if not layers or not (_is_masked(layers[0]) and _is_masked(layers[-1])):
        return None
    return layers if all(map(_is_known, layers)) else None


def _is_known(layer: Any) -> bool:
    if type(layer) is Residual:
        return len(layer) == 3 and _is_masked(layer[0]) and type(layer[1]) in ELEMENTWISE and _is_masked(layer[2])
    return type(layer) in ELEMENTWISE or _is_masked(layer)


def _is_masked(layer: Any) -> bool:
    return type(layer) is MaskedLinear and isinstance(layer.bias, Tensor) and type(layer.mask) is Tensor


def masked_layers(layers: Layers) -> list[MaskedLinear]:
    """All masked linear layers, those of residual blocks too."""
    inner = [part for layer in layers for part in (layer if type(layer) is Residual else [layer])]
    return [layer for layer in inner if type(layer) is MaskedLinear]


State = tuple[tuple[int, int], ...]


def state_of(masks: list[Tensor]) -> State:
    """Tells whether masks are what they were: loading a state dict writes into them."""
    return tuple((id(mask), 0 if mask.is_inference() else mask._version) for mask in masks)
