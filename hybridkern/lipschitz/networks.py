"""Networks ``g`` with a Lipschitz constant below one, for ``x + g(x)``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridkern.lipschitz.activations import ACTIVATIONS, ClipSwish, LipSwish
from hybridkern.lipschitz.layers import LipschitzConv2d, LipschitzLayer, LipschitzLinear
from hybridkern.lipschitz.power import Weights

Pair = tuple[Tensor, Tensor]  # a value (B, *S) and its directional derivatives (B, K, *S)
LayerBuilder = Callable[[int, int], LipschitzLayer]


def layer_builder(size: tuple[int, int] | None) -> LayerBuilder:
    """Builds linear layers for vectors, 3x3 convolutions for images of that size."""
    return LipschitzLinear if size is None else lambda inputs, outputs: LipschitzConv2d(inputs, outputs, size)


def _through(layer: LipschitzLayer, weight: Tensor, pair: Pair) -> Pair:
    x, directions = pair
    moved = layer.mapped(directions.flatten(0, 1), weight, None)
    return layer(x, weight), moved.unflatten(0, directions.shape[:2])


def _activated(activation: nn.Module, pair: Pair) -> Pair:
    if not isinstance(activation, LipSwish | ClipSwish):  # none stands before a first layer
        return pair
    x, directions = pair
    return activation(x), activation.tangents(x, directions)


class PlainNet(nn.Module):
    """Activation and layer in turn; on images 3x3, 1x1, ..., 3x3 convolutions.

    Args:
        width: features or channels of the input and the output.
        hidden: those between the layers, after the activation.
        activation: ``"lipswish"`` or ``"clipswish"``.
        size: height and width of images; ``None`` for vectors.
        activate_first: whether an activation stands before the first layer, as in every block but a flow's first.

    Source: Chen et al. 2019 (arXiv:1906.02735), appendix E.
    """

    def __init__(
        self, width: int, hidden: Sequence[int], activation: str, size: tuple[int, int] | None, activate_first: bool
    ) -> None:
        super().__init__()
        kind = ACTIVATIONS[activation]
        widening = kind.widening
        inputs = [width * (widening if activate_first else 1), *hidden]
        outputs = [*(features // widening for features in hidden), width]
        wide = layer_builder(size)
        inner = range(1, len(inputs) - 1)
        build = [LipschitzLinear if i in inner else wide for i in range(len(inputs))]
        self.layers = nn.ModuleList(make(i, o) for make, i, o in zip(build, inputs, outputs, strict=True))
        self.activations = nn.ModuleList(
            kind() if activate_first or i else nn.Identity() for i in range(len(self.layers))
        )

    def forward(self, x: Tensor, weights: Weights) -> Tensor:
        """``g(x)`` with these weights of the layers."""
        for activation, layer in zip(self.activations, self.layers, strict=True):
            assert isinstance(layer, LipschitzLayer)
            x = layer(activation(x), weights[layer])
        return x

    def with_tangents(self, x: Tensor, weights: Weights, directions: Tensor) -> Pair:
        """``g(x)`` and its derivatives in ``directions`` ``(B, K, *S)``, in plain operations."""
        pair = x, directions
        for activation, layer in zip(self.activations, self.layers, strict=True):
            assert isinstance(layer, LipschitzLayer)
            pair = _through(layer, weights[layer], _activated(activation, pair))
        return pair


class DenseNet(nn.Module):
    """Layers that join their outputs to their inputs, in learnt shares, and one layer back to the input's width.

    Layer ``i`` gives ``(e1 h, e2 phi(W h))`` with ``e1^2 + e2^2 = bound^2``: together they shrink distances.

    Args:
        width: features or channels of the input and the output.
        growth: features or channels that a layer adds.
        depth: number of layers that add.
        activation, size: as of :class:`PlainNet`.
        bound: of the joined layer, below one.

    Source: Perugachi-Diaz et al. 2021 (arXiv:2102.02694), sections 3.1 and 3.2.
    """

    def __init__(
        self, width: int, growth: int, depth: int, activation: str, size: tuple[int, int] | None, bound: float
    ) -> None:
        super().__init__()
        kind = ACTIVATIONS[activation]
        self.bound = bound
        build = layer_builder(size)
        widths = [width + i * growth for i in range(depth + 1)]
        self.layers = nn.ModuleList(build(features, growth // kind.widening) for features in widths[:-1])
        self.layers.append(LipschitzLinear(widths[-1], width))
        self.activations = nn.ModuleList(kind() for _ in range(depth))
        self.shares = nn.Parameter(torch.ones(depth, 2))

    def forward(self, x: Tensor, weights: Weights) -> Tensor:
        """``g(x)`` with these weights of the layers."""
        *inner, last = self.layers
        for share, activation, layer in zip(self._shares(), self.activations, inner, strict=True):
            assert isinstance(layer, LipschitzLayer)
            x = torch.cat((share[0] * x, share[1] * activation(layer(x, weights[layer]))), 1)
        assert isinstance(last, LipschitzLayer)
        out: Tensor = last(x, weights[last])
        return out

    def with_tangents(self, x: Tensor, weights: Weights, directions: Tensor) -> Pair:
        """``g(x)`` and its derivatives in ``directions`` ``(B, K, *S)``, in plain operations."""
        pair = x, directions
        *inner, last = self.layers
        for share, activation, layer in zip(self._shares(), self.activations, inner, strict=True):
            assert isinstance(layer, LipschitzLayer)
            more = _activated(activation, _through(layer, weights[layer], pair))
            x, directions = (
                torch.cat((share[0] * kept, share[1] * new), dim)
                for dim, kept, new in zip((1, 2), pair, more, strict=True)
            )
            pair = x, directions
        assert isinstance(last, LipschitzLayer)
        return _through(last, weights[last], pair)

    def _shares(self) -> Tensor:
        raw = F.softplus(self.shares) + 0.1
        shares: Tensor = self.bound * raw / raw.norm(dim=1, keepdim=True)
        return shares
