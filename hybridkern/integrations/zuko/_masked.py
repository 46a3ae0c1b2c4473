"""Masked networks of zuko, taken apart where their weights may be read instead of the modules being called."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from zuko.nn import MLP, LayerNorm, Linear, MaskedLinear, MaskedMLP, Residual

from hybridkern.integrations._layer import has_hooks, is_watched

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
    if type(network) is not MaskedMLP or has_hooks((network,)):
        return None
    layers: Any = list(network._modules.values())  # every call asks
    if not layers or not (_is_masked(layers[0]) and _is_masked(layers[-1])):
        return None
    return layers if all(map(_is_known, layers)) else None


def _is_known(layer: Any) -> bool:
    if type(layer) is Residual:
        inner = list(layer._modules.values())
        fits = len(inner) == 3 and type(inner[1]) in ELEMENTWISE and not is_watched(layer)
        return fits and all(map(_is_known, inner)) and _is_masked(inner[0]) and _is_masked(inner[2])
    return _is_masked(layer) or (type(layer) in ELEMENTWISE and not is_watched(layer))


def _is_masked(layer: Any) -> bool:
    if type(layer) is not MaskedLinear or is_watched(layer):
        return False
    return isinstance(layer._parameters.get("bias"), Tensor) and type(layer._buffers.get("mask")) is Tensor


def masked_layers(layers: Layers) -> list[MaskedLinear]:
    """All masked linear layers, those of residual blocks too."""
    found: list[MaskedLinear] = []
    for layer in layers:
        if type(layer) is MaskedLinear:
            found.append(layer)
        elif type(layer) is Residual:
            found += [layer[0], layer[2]]
    return found
