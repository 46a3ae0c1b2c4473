"""Networks as rows of convolutions, which is what can be converted to integers, and as they learn their steps."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridkern._arguments import short
from hybridkern.codec import dense
from hybridkern.codec.integers import ADD_STREAM, SET_STREAM, TO_OUTPUT, TO_TABLE
from hybridkern.codec.steps import best_step, input_bits, weight_steps
from hybridkern.nets import ConvNet, DenseNet, ResNet, Scaled
from hybridkern.nets.linear import LinearMap


class Stage(NamedTuple):
    """One convolution, ``weight`` ``(out, in, k, k)`` and ``bias`` ``(out,)`` in float64, and what its sums become.

    ``mode`` is one of :mod:`hybridkern.codec.integers`; a ReLU follows all but the last.
    """

    weight: Tensor
    bias: Tensor
    mode: int


def layers_of(net: nn.Module) -> list[tuple[nn.Conv2d, int]]:
    """The convolutions of a network in their order, and what becomes of the sums of each, as in :class:`Stage`.

    Raises:
        TypeError: a network of another kind than ``ConvNet`` and ``ResNet``.
    """
    found: list[tuple[Any, int]]
    if type(net) is ConvNet:
        found = [(net.conv1, TO_TABLE), (net.conv2, TO_TABLE), (net.conv3, TO_OUTPUT)]
    elif type(net) is ResNet:
        found = [(net.first, SET_STREAM)]
        for block in net.blocks:
            found += [(block.conv1, TO_TABLE), (block.conv2, ADD_STREAM)]
        found.append((net.last, TO_OUTPUT))
    else:
        raise TypeError(
            f"model: got the network {short(type(net).__name__)}, expected nets.ConvNet or nets.ResNet "
            "(nets.DenseNet, where no steps are learned): others have no form in integers; Codec takes them in float64"
        )
    for conv, _ in found:
        _check(conv)
    return found


def _check(conv: nn.Module) -> None:
    if type(conv) is not nn.Conv2d or conv.bias is None:
        raise TypeError(f"model: got the layer {short(type(conv).__name__)}, expected nn.Conv2d with a bias")


def _dense(net: DenseNet) -> list[Stage]:
    """A DenseNet's stages: all of them write the one stream, or read it."""
    for conv in dense.convolutions(net):
        _check(conv)
    pairs = list(dense.weights(net))
    modes = [SET_STREAM, *[TO_TABLE, ADD_STREAM] * len(net.layers), TO_OUTPUT]
    return [Stage(weight, bias, mode) for (weight, bias), mode in zip(pairs, modes, strict=True)]


def stages_of(net: nn.Module) -> tuple[list[Stage], float, float]:
    """The stages of a network, and the center and scale of what it sees.

    Raises:
        TypeError: a network of another kind.
    """
    if isinstance(net, Scaled):
        stages, center, scale = stages_of(net.net)
        if (center, scale) != (0.0, 1.0):
            raise TypeError("model: got a network that is scaled twice, expected once")
        last = stages[-1]
        stages[-1] = Stage(last.weight * net.scale, last.bias * net.scale, last.mode)
        return stages, net.center, net.scale
    if isinstance(net, QuantizedNet):
        net = net.net
    if type(net) is DenseNet:
        return _dense(net), 0.0, 1.0
    found = []
    for conv, mode in layers_of(net):
        assert conv.bias is not None
        found.append(Stage(conv.weight.detach().double(), conv.bias.detach().double(), mode))
    return found, 0.0, 1.0


class Steps(NamedTuple):
    """Learned steps: bits that the input loses, and of each stage those of its weights ``(out,)`` and what follows."""

    bits: int
    weights: list[Tensor]
    activations: list[float]


def steps_of(net: nn.Module) -> Steps | None:
    """The steps of weights as :func:`stages_of` gives them, where the network has learned any."""
    scale = net.scale if isinstance(net, Scaled) else 1.0
    inner = net.net if isinstance(net, Scaled) else net
    if not isinstance(inner, QuantizedNet) or not inner.on:
        return None
    weights = [log_step.detach().double().exp() for log_step in inner.weight_steps]
    weights[-1] = weights[-1] * scale
    return Steps(int(inner.bits), weights, inner.activation_steps.detach().double().exp().tolist())


class QuantizedNet(nn.Module):
    """A network that computes as if its weights and activations had 8 bits already, with steps that are learned.

    Until it is calibrated it is the network itself. Gradients pass roundings as if they were not there, so that those
    in the steps are as published.

    Args:
        net: a :class:`~hybridkern.nets.ConvNet` or :class:`~hybridkern.nets.ResNet`.
        center, scale: it sees ``(x - center) / scale`` of integers ``x``.

    Attributes:
        on: whether it is calibrated.
        bits: that the input loses.
        weight_steps, activation_steps: logarithms of the steps, an output channel and a layer.

    Raises:
        TypeError: another network.

    Source: Esser et al. 2020 (arXiv:1902.08153), with logarithms of the steps, which any optimizer moves by ratios.
    """

    on: Tensor
    bits: Tensor

    def __init__(self, net: nn.Module, center: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        layers = layers_of(net)
        self.net, self.center, self.scale = net, center, scale
        with layers[0][0].weight.device:
            self.weight_steps = nn.ParameterList(torch.zeros(conv.out_channels) for conv, _ in layers)
            self.activation_steps = nn.Parameter(torch.zeros(len(layers) - 1))
            self.register_buffer("on", torch.zeros((), dtype=torch.bool))
            self.register_buffer("bits", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` ``(B, C, H, W)`` -> ``(B, C', H, W)``."""
        return self._quantized(x) if self.on else self.net(x)

    @property
    def linear_rank(self) -> int:
        """That of the network, until it is calibrated."""
        return 0 if self.on else int(getattr(self.net, "linear_rank", 0))

    def start_at(self, linear: LinearMap) -> None:
        """As the network does."""
        cast("ResNet", self.net).start_at(linear)

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Chooses the first steps, by the least square error, for inputs ``(B, C, H, W)`` like those it will see."""
        integers = (x.double() * self.scale + self.center).round().long()
        self.bits.fill_(input_bits(integers - round(self.center)))
        self.on.fill_(True)
        self._quantized(x, choosing=True)

    def _quantized(self, x: Tensor, choosing: bool = False) -> Tensor:
        step = 2.0 ** int(self.bits) / self.scale
        offset = (round(self.center) - self.center) / self.scale
        seen = _rounded((x.float() if x.dtype is torch.bfloat16 else x) - offset, step, -128, 127) + offset
        stream: Tensor | None = None
        for i, (conv, mode) in enumerate(layers_of(self.net)):
            if choosing:
                self.weight_steps[i].copy_(weight_steps(conv.weight.double()).log())
            steps = self.weight_steps[i].exp()[:, None, None, None]
            weight = _rounded(conv.weight, steps.to(conv.weight.dtype), -127, 127)
            y = F.conv2d(seen, weight, conv.bias, padding=conv.padding)
            if mode == TO_OUTPUT:
                return y
            if mode != TO_TABLE:
                stream = y if mode == SET_STREAM or stream is None else stream + y
                y = stream
            y = (y.float() if y.dtype is torch.bfloat16 else y).relu()
            if choosing:
                self.activation_steps[i] = math.log(best_step(y, y.max().item(), 255))
            seen = _rounded(y, self.activation_steps[i].exp().to(y.dtype), 0, 255)
        raise AssertionError("the last layer is no output")


def _rounded(x: Tensor, step: Tensor | float, least: int, most: int) -> Tensor:
    """``x`` on a grid, a half up as :func:`~hybridkern.codec.integers.shifted`; the gradient passes the rounding."""
    inside = (x / step).clamp(least, most)
    return (inside + ((inside + 0.5).floor() - inside).detach()) * step
