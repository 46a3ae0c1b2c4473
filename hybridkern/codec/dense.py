"""A DenseNet as a residual network whose stream has a place for every layer: what can be converted to integers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hybridkern.nets import DenseNet


def layers_of(net: DenseNet) -> list[Any]:
    """Its layers, which are modules of one kind."""
    return list(net.layers)


def convolutions(net: DenseNet) -> list[nn.Conv2d]:
    """The convolutions of a network in their order.

    Raises:
        TypeError: its layers are normalized, or not followed by ReLUs.
    """
    found: list[nn.Conv2d] = []
    for layer in layers_of(net):
        plain = type(layer.norm1) is type(layer.norm2) is nn.Identity and type(layer.activation) is nn.ReLU
        if not plain:
            raise TypeError(
                "model: got a nets.DenseNet whose layers are normalized, expected one with norm=False: a norm has no "
                "form in integers; Codec takes it in float64"
            )
        found += [layer.conv1, layer.conv2]
    return [*found, net.last]


class Places:
    """Where the stream holds what: two channels for each of the input, its ReLU and that of its negative, then layers.

    Every channel is written once. What reads the stream passes a ReLU, so the input is the difference of its two.
    """

    def __init__(self, net: DenseNet) -> None:
        self.inputs = net.last.in_channels - sum(layer.conv2.out_channels for layer in layers_of(net))
        self.channels = net.last.in_channels + self.inputs

    def input(self) -> Tensor:
        """The weight ``(channels, inputs, 1, 1)`` that writes the input."""
        weight = torch.zeros(self.channels, self.inputs, 1, 1, dtype=torch.float64)
        each = torch.arange(self.inputs)
        weight[2 * each, each], weight[2 * each + 1, each] = 1, -1
        return weight

    def reading(self, weight: Tensor) -> Tensor:
        """A weight ``(out, in, k, k)`` for the input and the first layers as one for the stream."""
        found = weight.new_zeros(weight.shape[0], self.channels, *weight.shape[2:])
        own, rest = weight[:, : self.inputs], weight[:, self.inputs :]
        found[:, 0 : 2 * self.inputs : 2], found[:, 1 : 2 * self.inputs : 2] = own, -own
        found[:, 2 * self.inputs : 2 * self.inputs + rest.shape[1]] = rest
        return found

    def writing(self, of: Tensor, begin: int) -> Tensor:
        """A weight or bias ``(out, ...)`` for the channels from ``begin`` on, and zeros for the others."""
        found = of.new_zeros(self.channels, *of.shape[1:])
        found[begin : begin + len(of)] = of
        return found


def weights(net: DenseNet) -> Iterator[tuple[Tensor, Tensor]]:
    """Weight and bias, float64, of what writes the input to the stream, of two for each layer, and of the output."""
    places = Places(net)
    yield places.input(), torch.zeros(places.channels, dtype=torch.float64)
    given = [(_wide(conv.weight), _wide(conv.bias)) for conv in convolutions(net)]
    begin = 2 * places.inputs
    for i, (weight, bias) in enumerate(given):
        if i % 2 == 0:  # the last one, too
            yield places.reading(weight), bias
        else:
            yield places.writing(weight, begin), places.writing(bias, begin)
            begin += len(bias)


def _wide(parameter: Tensor | None) -> Tensor:
    assert parameter is not None
    return parameter.detach().double()
