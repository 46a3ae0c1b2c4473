"""The operators that are measured, at Glow's own sizes and in its memory format, and at sizes that fill any GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import (
    affine_coupling,
    discretized_logistic,
    discretized_logistic_mixture,
    gaussian_log_prob,
    paired_conv1x1,
    rounding_coupling,
)
from benchmarks._case import Work
from benchmarks.gpu.sizes import Shape, Sizes
from hybridkern import ops

_TOLERANCE_BF16 = 0.1  # ReLUs whose input is near 0 open or close


@dataclass(frozen=True)
class OperatorWork:
    """An operator at one size.

    Attributes:
        op: its name.
        name: as the tables have it.
        make: draws the inputs, on the CPU.
        channels_last: whether images lie so.
        low: the inputs, by place, that are bfloat16 beside float32.
        compiled: whether torch.compile of the formula is a side.
    """

    op: str
    name: str
    make: Callable[[], Work]
    channels_last: bool = False
    low: Sequence[int] = ()
    compiled: bool = False

    def placed(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        """The inputs in memory format and precision."""
        made = [v.bfloat16() if i in self.low else v for i, v in enumerate(inputs)]
        if not self.channels_last:
            return made
        return [v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v for v in made]


def works(sizes: Sizes) -> list[OperatorWork]:
    """All of them; what decides most comes first."""
    first = sizes.couplings[0]
    found = [network(shape, sizes.hidden, bf16) for bf16 in (True, False) for shape in sizes.network]
    for shape in sizes.couplings:
        name = f"affine_coupling glow {shape} channels_last, bf16 parameters"
        make = partial(affine_coupling.work, *shape)
        found.append(OperatorWork("affine_coupling", name, make, True, (1,), shape == first))
        name = f"paired_conv1x1 {shape} channels_last"
        found.append(OperatorWork("paired_conv1x1", name, partial(paired_conv1x1.work, *shape), True))
    for shape in sizes.densities:
        last = shape == sizes.densities[-1]
        name, make = f"gaussian_log_prob {shape}", partial(gaussian_log_prob.work, *shape)
        found.append(OperatorWork("gaussian_log_prob", name, make))
        name, make = f"discretized_logistic {shape}", partial(discretized_logistic.work, *shape)
        found.append(OperatorWork("discretized_logistic", name, make, compiled=last))
    name, make = (
        f"discretized_logistic_mixture K=5 {sizes.mixture}",
        partial(discretized_logistic_mixture.work, *sizes.mixture),
    )
    found.append(OperatorWork("discretized_logistic_mixture", name, make))
    name, make = f"rounding_coupling {sizes.lattice}", partial(rounding_coupling.work, *sizes.lattice)
    found.append(OperatorWork("rounding_coupling", name, make))
    wide = sizes.wide
    found += [
        OperatorWork(
            "affine_coupling", f"affine_coupling glow {wide}", partial(affine_coupling.work, *wide), compiled=True
        ),
        OperatorWork("paired_conv1x1", f"paired_conv1x1 {wide}", partial(paired_conv1x1.work, *wide)),
    ]
    return found


def network(shape: Shape, hidden: int, bf16: bool) -> OperatorWork:
    """Network of one step of Glow on a half of this shape, beside three convolutions of PyTorch."""
    channels = shape[1]

    def ours(x: Tensor, *weights: Tensor) -> tuple[Tensor]:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            return (ops.coupling_network(x, *weights),)

    def eager(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor) -> tuple[Tensor]:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            h = torch.relu(F.conv2d(x, w1, b1, padding=1))
            h = torch.relu(F.conv2d(h, w2, b2))
            return (F.conv2d(h, w3, b3, padding=1).float(),)

    def make() -> Work:
        def draw(*size: int, scale: float = 1.0) -> Tensor:
            return scale * torch.randn(size)

        inputs = (
            draw(*shape),
            draw(hidden, channels, 3, 3, scale=(9 * channels) ** -0.5),
            draw(hidden),
            draw(hidden, hidden, 1, 1, scale=hidden**-0.5),
            draw(hidden),
            draw(2 * channels, hidden, 3, 3, scale=(9 * hidden) ** -0.5),
            draw(2 * channels),
        )
        return Work(ours, eager, inputs, _TOLERANCE_BF16) if bf16 else Work(ours, eager, inputs)

    name = f"coupling_network {shape} hidden {hidden}, {'bf16' if bf16 else 'float32'}"
    return OperatorWork("coupling_network", name, make, channels_last=True, compiled=bf16)
