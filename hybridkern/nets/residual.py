"""Networks of many layers for integer flows on images."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridkern._arguments import as_flag, as_size
from hybridkern.nets.linear import LinearMap, may_start, start_at_pairs


class ResidualBlock(nn.Module):
    """``x + conv(relu(conv(relu(x))))``, 3x3 both."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Shape of ``x``."""
        y: Tensor = self.conv2(F.relu(self.conv1(F.relu(x))))
        return x + y


class ResNet(nn.Module):
    """3x3 convolution, ``blocks`` residual blocks, ReLU, 3x3 convolution (zero first).

    A network that can be converted to integers (:func:`hybridkern.codec.quantize`).

    Args:
        in_channels, out_channels: channels of input and output.
        hidden: channels of the hidden layers.
        blocks: number of residual blocks, of two 3x3 convolutions each.

    Raises:
        TypeError, ValueError: a size is not a positive integer.

    Source: Wang et al. 2022 (arXiv:2206.08869), whose integer flows have such networks of 8 blocks and 128 channels.
    """

    def __init__(self, in_channels: int, out_channels: int, hidden: int = 128, blocks: int = 4) -> None:
        super().__init__()
        in_channels, out_channels = as_size("in_channels", in_channels), as_size("out_channels", out_channels)
        hidden, blocks = as_size("hidden", hidden), as_size("blocks", blocks)
        self.first = nn.Conv2d(in_channels, hidden, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(hidden) for _ in range(blocks))
        self.last = _zero(nn.Conv2d(hidden, out_channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` ``(B, in_channels, H, W)`` -> ``(B, out_channels, H, W)``."""
        h = self.first(x)
        for block in self.blocks:
            h = block(h)
        y: Tensor = self.last(F.relu(h))
        return y

    @property
    def _blocks(self) -> list[ResidualBlock]:
        return [cast("ResidualBlock", block) for block in self.blocks]

    @property
    def linear_rank(self) -> int:
        """The highest rank of a linear map that the network can start at; 0 once it has learnt something."""
        convs = [conv for block in self._blocks for conv in (block.conv1, block.conv2)]
        return self.first.out_channels // 2 if may_start([self.first, *convs, self.last]) else 0

    @torch.no_grad()
    def start_at(self, linear: LinearMap) -> None:
        """Computes a linear map from now on; the blocks leave the units that it takes as they are."""
        start_at_pairs(self.first, self.last, linear)
        for block in self._blocks:
            for value in block.conv2.parameters():
                value[: 2 * len(linear.bias)] = 0


class _DenseLayer(nn.Module):
    def __init__(self, channels: int, growth: int, norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1)
        self.conv2 = nn.Conv2d(channels, growth, 3, padding=1)
        self.norm1 = nn.GroupNorm(1, channels) if norm else nn.Identity()
        self.norm2 = nn.GroupNorm(1, growth) if norm else nn.Identity()
        self.activation = nn.SiLU() if norm else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.norm1(self.conv1(x)))
        return torch.cat([x, self.activation(self.norm2(self.conv2(h)))], 1)


class DenseNet(nn.Module):
    """``layers`` of 1x1 and 3x3 convolution whose outputs join their input, then a 3x3 convolution (zero first).

    Args:
        in_channels, out_channels: channels of input and output.
        hidden: channels that the layers add up to.
        layers: number of layers.
        norm: GroupNorm and Swish instead of ReLU.

    Raises:
        TypeError, ValueError: a size is not a positive integer, or fewer hidden channels than layers.

    Source: Hoogeboom et al. 2019 (arXiv:1905.07376), appendix; with ``norm`` van den Berg et al. 2021
    (arXiv:2006.12459), section 5.
    """

    def __init__(
        self, in_channels: int, out_channels: int, hidden: int = 512, layers: int = 12, norm: bool = False
    ) -> None:
        super().__init__()
        in_channels, out_channels = as_size("in_channels", in_channels), as_size("out_channels", out_channels)
        layers, norm = as_size("layers", layers), as_flag("norm", norm)
        hidden = as_size("hidden", hidden, layers, expected=f"at least {layers}, a channel a layer")
        self.layers = nn.Sequential()
        channels = in_channels
        for i in range(layers):
            growth = hidden // layers + (i < hidden % layers)
            self.layers.append(_DenseLayer(channels, growth, norm))
            channels += growth
        self.last = _zero(nn.Conv2d(channels, out_channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` ``(B, in_channels, H, W)`` -> ``(B, out_channels, H, W)``."""
        y: Tensor = self.last(self.layers(x))
        return y

    @property
    def linear_rank(self) -> int:
        """The highest rank of a linear map that the network can start at; 0 once it has learnt something."""
        return self.last.out_channels if may_start([self.last]) else 0

    @torch.no_grad()
    def start_at(self, linear: LinearMap) -> None:
        """Computes a linear map from now on, of the input that the last convolution sees beside the layers' outputs."""
        weight = torch.einsum("or,rchw->ochw", linear.up, linear.down)
        self.last.weight[:, : weight.shape[1]] = weight.to(self.last.weight)
        assert self.last.bias is not None
        self.last.bias.copy_(linear.up @ linear.bias + linear.rest)


def _zero(conv: nn.Conv2d) -> nn.Conv2d:
    assert conv.bias is not None
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv
