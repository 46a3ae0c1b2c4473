"""1x1 convolution over two halves of the channels, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern._precision import like, wide


def paired_conv1x1(first: Tensor, second: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """See :func:`hybridkern.ops.paired_conv1x1`; arguments are taken as valid."""
    x = torch.cat([wide(first), wide(second)], 1)
    y = torch.einsum("oi,bi...->bo...", wide(weight), x)
    if bias is not None:
        y = y + wide(bias).reshape(-1, *(1,) * (x.ndim - 2))
    y_first, y_second = y.chunk(2, 1)
    return like(y_first, first), like(y_second, second)
