"""What networks on images can begin at instead of zero: a linear map of low rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hybridkern._calls import is_plain_conv

_ZERO = 1e-8  # networks that end in all but zero weights give zeros


class LinearMap(NamedTuple):
    """``up (down * x + bias) + rest``, ``down`` a 3x3 convolution ``(r, in, 3, 3)`` and ``up`` ``(out, r)``."""

    down: Tensor
    bias: Tensor
    up: Tensor
    rest: Tensor


@torch.no_grad()
def start_at_pairs(first: nn.Conv2d, last: nn.Conv2d, linear: LinearMap) -> None:
    """Two hidden units with opposite signs carry each number through ReLUs: ``relu(v) - relu(-v) = v``.

    The first units are taken, and what lies between the two convolutions must leave them as they are.
    """
    assert first.bias is not None and last.bias is not None
    r = len(linear.bias)
    for begin, sign in ((0, 1), (1, -1)):
        units = slice(begin, 2 * r, 2)
        first.weight[units] = (sign * linear.down).to(first.weight)
        first.bias[units] = (sign * linear.bias).to(first.bias)
        last.weight[:, units, 1, 1] = (sign * linear.up).to(last.weight)
    last.bias.copy_(linear.rest)


def may_start(convs: Sequence[nn.Module]) -> bool:
    """Whether convolutions do nothing but convolve, and the last one still gives zeros: nothing learnt is lost."""
    if not all(isinstance(conv, nn.Conv2d) and is_plain_conv(conv, conv.kernel_size[0]) for conv in convs):
        return False
    return not any(value.is_meta or (value.abs() > _ZERO).any() for value in convs[-1].parameters())
