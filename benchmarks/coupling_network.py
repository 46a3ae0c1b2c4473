"""``coupling_network`` against the three ``nn.Conv2d`` that peers chain, in the same memory format and precision."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks._case import Work
from hybridkern import ops

BATCH, HIDDEN = 32, 512


def work(channels: int, size: int, bf16: bool, memory_format: torch.memory_format = torch.channels_last) -> Work:
    """Network of one step of Glow: ``channels`` in, twice as many out, ``size`` pixels square."""

    def ours(x: Tensor, *weights: Tensor) -> tuple[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return (ops.coupling_network(x, *weights),)

    def eager(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor) -> tuple[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            h = torch.relu(F.conv2d(x, w1, b1, padding=1))
            h = torch.relu(F.conv2d(h, w2, b2))
            return (F.conv2d(h, w3, b3, padding=1).float(),)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        value = scale * torch.randn(shape)
        return value.contiguous(memory_format=memory_format) if value.ndim == 4 else value

    inputs = (
        draw(BATCH, channels, size, size),
        draw(HIDDEN, channels, 3, 3, scale=(9 * channels) ** -0.5),
        draw(HIDDEN),
        draw(HIDDEN, HIDDEN, 1, 1, scale=HIDDEN**-0.5),
        draw(HIDDEN),
        draw(2 * channels, HIDDEN, 3, 3, scale=(9 * HIDDEN) ** -0.5),
        draw(2 * channels),
    )
    return Work(ours, eager, inputs)
