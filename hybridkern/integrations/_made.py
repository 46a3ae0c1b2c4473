"""Masked networks of nflows and normflows whose layers may be read instead of called, and how their units depend.

Both libraries hold the same network: a masked layer, residual or plain blocks of masked layers, a masked layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridkern.integrations._layer import has_hooks
from hybridkern.integrations._seen import Seen

_MODULES = ("nflows.transforms.made", "normflows.nets.made")
_PERIODIC = "normflows.utils.nn.PeriodicFeaturesElementwise"
_BY_ELEMENT = {nn.ReLU, nn.Tanh, nn.ELU, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Softplus}
_FUNCTIONS: tuple[object, ...] = (
    *(F.relu, F.elu, F.leaky_relu, F.silu, F.gelu, F.softplus, F.tanh, F.sigmoid),
    *(torch.relu, torch.tanh, torch.sigmoid),
)
Activation = Callable[[Tensor], Tensor]


class Levels(NamedTuple):
    """When each unit of a masked network can be computed: ``k`` for one that needs ``k`` features.

    Attributes:
        order: the features in the order in which an inverse finds them.
        places: the same as a tensor.
        inverse: what undoes it.
        units: of every layer but the last, its units by level, and how many there are of levels 0 to ``D - 1``.
        periodic: where in ``preprocessing`` the periodic features lie.
    """

    order: list[int]
    places: Tensor
    inverse: Tensor
    units: list[tuple[Tensor, list[int]]]
    periodic: dict[int, int]


def masked_layers(net: Any) -> list[Any]:
    """All masked layers, in the order in which they are computed."""
    inner = [layer for block in net.blocks for layer in (block.linear_layers if is_residual(net) else [block.linear])]
    return [net.initial_layer, *inner, net.final_layer]


def is_residual(net: Any) -> bool:
    """Whether its blocks are residual ones of two layers."""
    return len(net.blocks) > 0 and hasattr(net.blocks[0], "linear_layers")


def is_known(net: Any, context: Tensor | None) -> bool:
    """Whether a call of ``net`` does nothing but compute by the layers that it had from the start.

    Batch normalization is left to calls: it may count.
    """
    name = type(net).__module__
    if type(net).__qualname__ != "MADE" or name not in _MODULES or has_hooks(net.modules()):
        return False
    residual, is_nflows = is_residual(net), name == _MODULES[0]
    kinds = {f"{type(block).__module__}.{type(block).__qualname__}" for block in net.blocks}
    if not kinds <= {f"{name}.{'MaskedResidualBlock' if residual else 'MaskedFeedforwardBlock'}"}:
        return False
    if context is not None and not (hasattr(net, "context_layer") and (residual or is_nflows)):
        return False
    if not all(_is_known_block(block, residual, context) for block in net.blocks):
        return False
    linear = {f"{type(layer).__module__}.{type(layer).__qualname__}" for layer in masked_layers(net)}
    plain = [] if context is None else context_layers(net)
    return linear == {f"{name}.MaskedLinear"} and all(type(layer) is nn.Linear for layer in plain) and _prepares(net)


def _is_known_block(block: Any, residual: bool, context: Tensor | None) -> bool:
    counts = block.use_batch_norm if residual else block.batch_norm is not None
    if counts or (block.dropout.p > 0 and block.dropout.training) or type(block.dropout) is not nn.Dropout:
        return False
    return _is_by_element(block.activation) and (context is None or not residual or hasattr(block, "context_layer"))


def _is_by_element(activation: Any) -> bool:
    if type(activation) in _BY_ELEMENT:
        return not getattr(activation, "inplace", False)
    return any(activation is function for function in _FUNCTIONS)


def _prepares(net: Any) -> bool:
    own = getattr(net, "preprocessing", None)
    if own is None or type(own) is nn.Identity:
        return True
    return f"{type(own).__module__}.{type(own).__qualname__}" == _PERIODIC and type(own.activation) is nn.Identity


def context_layers(net: Any) -> list[nn.Module]:
    """The layers that see the context."""
    blocks = [block.context_layer for block in net.blocks] if is_residual(net) else []
    return [net.context_layer, *blocks]


def levels_of(net: Any, features: int) -> Levels | None:
    """Read off the masks; ``None`` where they allow none: a feature depends on itself or later ones, a residual unit
    falls behind, or the network has another number of features.

    Args:
        net: one that :func:`is_known`.
        features: how many there are.
    """
    layers = masked_layers(net)
    if layers[0].mask.shape[1] != features or len(layers[-1].degrees) % features:
        return None
    degrees = layers[-1].degrees.view(features, -1)[:, 0].cpu()
    order = torch.argsort(degrees)
    inverse = torch.argsort(order)
    found: list[Tensor] = []
    before = inverse + 1
    for i, layer in enumerate(layers[:-1]):
        own = _level(layer.mask, before)
        if is_residual(net) and i and i % 2 == 0:  # the end of a block: added to what came in
            start = found[i - 2]
            if bool((own > start).any()):
                return None
            own = start
        found.append(own)
        before = own
    last = _level(layers[-1].mask, before).view(features, -1).amax(1)
    if bool((last > inverse).any()):
        return None
    device = layers[-1].degrees.device
    units = [_by_level(own, features, device) for own in found]
    preparation = getattr(net, "preprocessing", None)
    periodic = {} if preparation is None or type(preparation) is nn.Identity else preparation.ind.tolist()
    return Levels(
        order.tolist(),
        order.to(device),
        inverse.to(device),
        units,
        {feature: place for place, feature in enumerate(periodic)},
    )


def _level(mask: Tensor, before: Tensor) -> Tensor:
    """The largest level that each row of a mask sees, 0 for none."""
    return ((mask.cpu() != 0) * before).amax(1)


def _by_level(levels: Tensor, features: int, device: torch.device) -> tuple[Tensor, list[int]]:
    """Units in the order of their levels, and how many have each; one that needs all features is needed by none."""
    counts: list[int] = torch.bincount(levels, minlength=features)[:features].tolist()
    return torch.argsort(levels, stable=True)[: sum(counts)].to(device), counts


class Known(NamedTuple):
    """The levels of a network for so many features, and the tensors that they were read off."""

    levels: Levels | None
    features: int
    seen: Seen

    def is_of(self, net: Any, features: int) -> bool:
        """Whether they are those of ``net`` as it is now, for so many features."""
        return features == self.features and self.seen.holds(_held(net))


def known_levels(net: Any, features: int) -> Known:
    """:func:`levels_of`, to be kept."""
    with torch.inference_mode(False):  # kept for training too
        return Known(levels_of(net, features), features, Seen(_held(net)))


def _held(net: Any) -> tuple[Tensor, ...]:
    held = [value for layer in masked_layers(net) for value in (layer.mask, layer.degrees)]
    return *held, *(value for value in [getattr(getattr(net, "preprocessing", None), "ind", None)] if value is not None)
