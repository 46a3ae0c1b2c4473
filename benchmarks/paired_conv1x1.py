"""``paired_conv1x1`` against the field's: the halves joined, one matrix product, and split again."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks._case import Work
from hybridkern import ops


def ours(first: Tensor, second: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    """The halves of ``y``."""
    return ops.paired_conv1x1(first, second, weight, bias)


def eager(first: Tensor, second: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    """A matrix product rather than ``conv2d``, which rounds float32 to TF32 on GPUs unless told otherwise."""
    x = torch.cat([first, second], 1)
    y = torch.einsum("oi,bihw->bohw", weight, x) + bias[:, None, None]
    return tuple(y.chunk(2, 1))


def work(batch: int, channels: int, height: int, width: int) -> Work:
    """Halves ``(batch, channels, height, width)``, a rotation, and an offset."""
    first, second = (torch.randn(batch, channels, height, width) for _ in range(2))
    weight = torch.linalg.qr(torch.randn(2 * channels, 2 * channels))[0].contiguous()
    return Work(ours, eager, (first, second, weight, torch.randn(2 * channels)))
