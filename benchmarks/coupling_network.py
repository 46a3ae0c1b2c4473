"""``coupling_network`` against the three ``nn.Conv2d`` that peers chain, in the same memory format and precision."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks._case import Case, Work, operator_case
from hybridkern import ops

BATCH, HIDDEN = 32, 512
# In bfloat16 gradients are 4 to 7 % away from those in float32, ours and the eager formula's alike: ReLUs whose input
# is near 0 open or close.
_TOLERANCE_BF16 = 0.1


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
    return Work(ours, eager, inputs, _TOLERANCE_BF16) if bf16 else Work(ours, eager, inputs)


def cases() -> list[Case]:
    """The three levels of Glow on 3x32x32, with the memory formats and precisions that peers may choose."""
    variants = (
        ("float32 NCHW", False, torch.contiguous_format, 1.15),
        ("float32 channels_last", False, torch.channels_last, 1.15),
        ("bfloat16 channels_last", True, torch.channels_last, 2.0),
    )
    return [
        operator_case(
            f"coupling_network ({BATCH},{channels},{size},{size}) hidden {HIDDEN}, {what}",
            partial(work, channels, size, bf16, memory_format),
            eager=target,
            compile_formula=False,
        )
        for channels, size in ((6, 16), (12, 8), (24, 4))
        for what, bf16, memory_format, target in variants
    ]
