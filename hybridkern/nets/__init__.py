"""Networks for coupling layers and heads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridkern._arguments import as_builder, as_number, as_size, as_sizes, built, short
from hybridkern._calls import plain_weights
from hybridkern._saved.built import Built
from hybridkern.nets.constant import Constant
from hybridkern.nets.linear import LinearMap, may_start, start_at_pairs
from hybridkern.nets.masked import MADE
from hybridkern.nets.residual import DenseNet, ResNet
from hybridkern.ops.coupling_network.operator import coupling_network, has_fused_network

__all__ = [
    "MADE",
    "Constant",
    "ConvNet",
    "DenseNet",
    "HighwayNet",
    "ResNet",
    "Scaled",
    "as_center_and_scale",
    "as_probability",
    "mlp",
]


def mlp(
    in_features: int,
    out_features: int,
    hidden: Sequence[int] = (256, 256),
    *,
    activation: Callable[[], nn.Module] = nn.LeakyReLU,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    zero_last: bool = False,
) -> nn.Sequential:
    """Multi-layer perceptron ``(B, in_features) -> (B, out_features)``.

    Args:
        in_features, out_features: sizes of input and output.
        hidden: sizes of the hidden layers; empty gives one linear layer.
        activation: builds the activation after each hidden layer. The default has no transcendental function, so
            that its value does not depend on a mathematical library.
        dropout: probability of dropping a hidden unit in training; 0 adds no layer.
        input_dropout: the same for the inputs.
        zero_last: start from zero output, so that a flow made of such networks starts as the identity.

    Raises:
        TypeError: an argument of another type.
        ValueError: a size is not positive, or a dropout probability is outside ``[0, 1)``.
    """
    in_features, out_features = as_size("in_features", in_features), as_size("out_features", out_features)
    sizes = (in_features, *as_sizes("hidden", hidden), out_features)
    dropout, input_dropout = as_probability("dropout", dropout), as_probability("input_dropout", input_dropout)
    as_builder("activation", activation, "a function that builds an activation, such as nn.ReLU")
    layers: list[nn.Module] = [nn.Dropout(input_dropout)] if input_dropout else []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), built("activation", activation())]
        if dropout:
            layers.append(nn.Dropout(dropout))
    layers = layers[: len(layers) - (2 if dropout else 1)]
    last = layers[-1]
    if zero_last:
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(*layers)


def as_probability(name: str, value: object) -> float:
    """``value`` as a probability of dropping a unit.

    Raises:
        TypeError: not a number.
        ValueError: outside ``[0, 1)``.
    """
    return as_number(name, value, lambda p: 0 <= p < 1, "a probability in [0, 1)")


def as_center_and_scale(center: object, scale: object) -> tuple[float, float]:
    """Middle and half range of data as floats.

    Raises:
        TypeError: not a number.
        ValueError: ``center`` is not finite, or ``scale`` not finite and positive.
    """
    positive = "a finite number greater than 0"
    return as_number("center", center), as_number("scale", scale, lambda s: math.isfinite(s) and s > 0, positive)


class Scaled(Built, nn.Module):
    """``scale * net((x - center) / scale)``: a network for integers far from 0 that itself sees numbers of order 1.

    Args:
        net: the network, on the scaled values.
        center, scale: middle and half range of the data, in their units.

    Raises:
        TypeError, ValueError: ``net`` is no module, ``center`` not finite, or ``scale`` not finite and positive.
    """

    def __init__(self, net: nn.Module, center: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.center, self.scale = as_center_and_scale(center, scale)
        if not isinstance(net, nn.Module):
            raise TypeError(f"net: got {short(net)}, expected an nn.Module")
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """``x`` ``(B, in_features)`` -> ``(B, out_features)``, both in the units of the data."""
        y: Tensor = self.net((x - self.center) / self.scale)
        return self.scale * y

    def extra_repr(self) -> str:
        """The two numbers, for ``print``."""
        return f"center={self.center}, scale={self.scale}"


def _channels(in_channels: object, out_channels: object, hidden: object) -> tuple[int, int, int]:
    return as_size("in_channels", in_channels), as_size("out_channels", out_channels), as_size("hidden", hidden)


# below the precision of float32 in what a coupling makes of it, and above what torch takes for 0 in a norm (1e-12)
_ALL_BUT_ZERO = 1e-10


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def _zero(conv: nn.Conv2d) -> nn.Conv2d:
    # Weights of exactly 0 have no direction and no norm: nn.utils.weight_norm and spectral_norm make NaN of them.
    nn.init.constant_(conv.weight, _ALL_BUT_ZERO)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


class ConvNet(Built, nn.Module):
    """Glow's coupling network: 3x3 convolution, ReLU, 1x1, ReLU, 3x3, the last one zero at the start.

    On a CPU, and on a GPU under autocast in bfloat16, the whole network is one operator,
    :func:`hybridkern.ops.coupling_network`, that reads the weights. Where
    a convolution does more when it is called (a hook, a reparametrization, pruning, an adapter or another class in its
    place), the three are called instead.

    Args:
        in_channels, out_channels: channels of input and output.
        hidden: channels of both hidden layers.

    Attributes:
        save_hidden: whether a backward pass may keep the hidden activations of the forward pass. A flow that saves
            memory sets it to False. It changes no result; plain convolutions do not look at it.

    Raises:
        TypeError, ValueError: a size is not a positive integer.

    Source: Kingma and Dhariwal 2018 (arXiv:1807.03039), section 5; hidden weights start as there, N(0, 0.05^2).
    """

    def __init__(self, in_channels: int, out_channels: int, hidden: int = 512) -> None:
        super().__init__()
        in_channels, out_channels, hidden = _channels(in_channels, out_channels, hidden)
        self.conv1 = _conv3x3(in_channels, hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 1)
        self.conv3 = _zero(_conv3x3(hidden, out_channels))
        self.save_hidden = True
        for conv in (self.conv1, self.conv2):
            nn.init.normal_(conv.weight, std=0.05)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` ``(B, in_channels, H, W)`` -> ``(B, out_channels, H, W)``, channels_last where ``x`` is."""
        weights = plain_weights(self.conv1, self.conv2, self.conv3)
        if weights is None:
            # what stands in for a convolution may keep its output: no activation in place
            return self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))  # type: ignore[no-any-return]
        w1, b1, w2, b2, w3, b3 = weights
        if has_fused_network(x) and w1.dtype is x.dtype and w2.dtype is x.dtype and w3.dtype is x.dtype:
            return coupling_network(x, *weights, save_hidden=self.save_hidden)
        h = F.relu_(F.conv2d(x, w1, b1, padding=1))
        h = F.relu_(F.conv2d(h, w2, b2))
        return F.conv2d(h, w3, b3, padding=1)

    @property
    def linear_rank(self) -> int:
        """The highest rank of a linear map that the network can start at; 0 once it has learnt something."""
        return self.conv1.out_channels // 2 if may_start([self.conv1, self.conv2, self.conv3]) else 0

    @torch.no_grad()
    def start_at(self, linear: LinearMap) -> None:
        """Computes a linear map from now on; the second layer hands on the units that it takes."""
        start_at_pairs(self.conv1, self.conv3, linear)
        units = 2 * len(linear.bias)
        for value in self.conv2.parameters():
            value[:units] = 0
        self.conv2.weight[:units, :units, 0, 0].fill_diagonal_(1)


class _Highway(nn.Module):
    """``T * relu(H x) + (1 - T) * x`` with ``T = sigma(G x)``, pixel by pixel; both products in one convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 1)
        assert self.conv.bias is not None
        with torch.no_grad():
            self.conv.bias[channels:] = -2.0  # starts by carrying its input

    def forward(self, x: Tensor) -> Tensor:
        """Shape of ``x``."""
        value, gate = self.conv(x).chunk(2, 1)
        return torch.lerp(x, F.relu(value).to(x.dtype), torch.sigmoid(gate).to(x.dtype))


class HighwayNet(Built, nn.Module):
    """Convolutional Highway network: 3x3 convolution, ReLU, ``layers`` Highway layers, 3x3 convolution (zero first).

    The Highway layers work pixel by pixel (1x1), the two 3x3 convolutions bring in the neighbors. The papers on hybrid
    models name a "3-layer Highway network" and its width without saying how it sees an image; a fully connected one
    would need weights for every pair of pixels and serve one image size only.

    Args:
        in_channels, out_channels: channels of input and output.
        hidden: channels of the hidden layers.
        layers: number of Highway layers.

    Raises:
        TypeError, ValueError: a size is not a positive integer.

    Source: Srivastava et al. 2015 (arXiv:1505.00387), equation 3, gates starting at bias -2 as in its section 4;
    Nalisnick et al. 2019 (arXiv:1902.02767) for its use.
    """

    def __init__(self, in_channels: int, out_channels: int, hidden: int = 300, layers: int = 3) -> None:
        super().__init__()
        in_channels, out_channels, hidden = _channels(in_channels, out_channels, hidden)
        layers = as_size("layers", layers)
        self.first = _conv3x3(in_channels, hidden)
        self.highway = nn.Sequential(*(_Highway(hidden) for _ in range(layers)))
        self.last = _zero(_conv3x3(hidden, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` ``(B, in_channels, H, W)`` -> ``(B, out_channels, H, W)``."""
        h = F.relu(self.first(x))
        y: Tensor = self.last(self.highway(h))
        return y
