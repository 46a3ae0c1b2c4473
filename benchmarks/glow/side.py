"""What every library builds for the comparison: the same architecture, in its own conventions."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Architecture:
    """A multi-scale Glow; every field is an option of the command.

    Attributes:
        shape: channels, height and width of an image.
        levels: how often the image is squeezed; half of the channels leave after each level but the last.
        steps: steps of flow a level.
        hidden: channels inside the coupling networks (3x3, ReLU, 1x1, ReLU, 3x3).
    """

    shape: tuple[int, int, int] = (3, 32, 32)
    levels: int = 3
    steps: int = 8
    hidden: int = 512

    @property
    def dim(self) -> int:
        """Dimensions of one image."""
        return math.prod(self.shape)

    def level_shapes(self) -> list[tuple[int, int, int]]:
        """What the steps of each level see, from the image on: ``(channels, height, width)`` after the squeeze."""
        channels, height, width = self.shape
        shapes = []
        for _ in range(self.levels):
            channels, height, width = 4 * channels, height // 2, width // 2
            shapes.append((channels, height, width))
            channels //= 2
        return shapes


@dataclass(frozen=True)
class Side:
    """One library's model, ready to train.

    Attributes:
        name: as the table prints it.
        model: holds all parameters.
        log_prob: ``x (B, C, H, W)`` to nats ``(B,)``.
        sample: number of images to images.
        networks: the coupling networks, modules that are called once per pass each.
        bf16: whether steps and sampling run under ``torch.autocast(..., torch.bfloat16)``.
        channels_last: whether the library is given its images in that memory format.
    """

    name: str
    model: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int], Tensor]
    networks: tuple[nn.Module, ...]
    bf16: bool = False
    channels_last: bool = False

    def precision(self, device: str = "cpu") -> torch.autocast | nullcontext[None]:
        """The context of a step."""
        return torch.autocast(device, torch.bfloat16) if self.bf16 else nullcontext()

    def loss(self, x: Tensor) -> Tensor:
        """Mean bits per dimension of ``x`` as it is, without the constant of dequantization."""
        with self.precision(x.device.type):
            return -self.log_prob(x).mean() / (math.log(2) * math.prod(x.shape[1:]))

    def prepared(self, x: Tensor) -> Tensor:
        """``x`` in the memory format that this side takes."""
        return x.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)

    def parameters_in_networks(self) -> int:
        """Number of parameters of the coupling networks."""
        return sum(p.numel() for network in self.networks for p in network.parameters())

    def parameters_elsewhere(self) -> int:
        """Number of the other parameters that are trained."""
        every = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        return every - self.parameters_in_networks()


def optimizer_of(side: Side) -> torch.optim.Optimizer:
    """The same for every side: torch's fused Adam."""
    return torch.optim.Adam([p for p in side.model.parameters() if p.requires_grad], lr=1e-4, fused=True)


def training_step(side: Side, x: Tensor) -> Callable[[], Tensor]:
    """``zero_grad``, loss, ``backward`` and Adam on ``x``, which every call trains on anew."""
    optimizer = optimizer_of(side)
    side.model.train()
    images = side.prepared(x)

    def run() -> Tensor:
        optimizer.zero_grad()
        loss = side.loss(images)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return run


def sampling(side: Side, count: int) -> Callable[[], Tensor]:
    """Draws ``count`` images: latents, and the inverse of the flow."""

    def run() -> Tensor:
        with torch.no_grad(), side.precision():
            return side.sample(count)

    return run
