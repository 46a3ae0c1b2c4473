"""Networks as rows of convolutions, which is what can be converted to integers."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from hybridkern._arguments import short
from hybridkern.codec.integers import ADD_STREAM, SET_STREAM, TO_OUTPUT, TO_TABLE
from hybridkern.nets import ConvNet, ResNet, Scaled


class Stage(NamedTuple):
    """One convolution, ``weight`` ``(out, in, k, k)`` and ``bias`` ``(out,)`` in float64, and what its sums become.

    ``mode`` is one of :mod:`hybridkern.codec.integers`; a ReLU follows all but the last.
    """

    weight: Tensor
    bias: Tensor
    mode: int


def _stage(conv: object, mode: int) -> Stage:
    if type(conv) is not nn.Conv2d or conv.bias is None:
        raise TypeError(f"model: got the layer {short(type(conv).__name__)}, expected nn.Conv2d with a bias")
    return Stage(conv.weight.detach().double(), conv.bias.detach().double(), mode)


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
    if type(net) is ConvNet:
        modes = (TO_TABLE, TO_TABLE, TO_OUTPUT)
        return [_stage(c, m) for c, m in zip((net.conv1, net.conv2, net.conv3), modes, strict=True)], 0.0, 1.0
    if type(net) is ResNet:
        stages = [_stage(net.first, SET_STREAM)]
        for block in net.blocks:
            stages += [_stage(block.conv1, TO_TABLE), _stage(block.conv2, ADD_STREAM)]
        return [*stages, _stage(net.last, TO_OUTPUT)], 0.0, 1.0
    raise TypeError(
        f"model: got the network {short(type(net).__name__)}, expected nets.ConvNet or nets.ResNet: others have no "
        "form in integers; Codec takes them in float64"
    )
