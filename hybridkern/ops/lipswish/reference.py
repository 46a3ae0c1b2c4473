"""LipSwish and CLipSwish in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hybridkern._precision import wide

SLOPE = 1.1  # the derivative of x sigmoid(bx) is at most 1.0998, whatever b
PAIR_SLOPE = 1.004  # the derivatives of both outputs together: sqrt(1.0998^2 + 0.0998^2) / 1.1 = 1.0039


def _lipswish(x: Tensor, beta: Tensor) -> Tensor:
    return x * torch.sigmoid(F.softplus(beta.reshape(())) * x) / SLOPE


def lipswish(x: Tensor, beta: Tensor) -> Tensor:
    """See :func:`hybridkern.ops.lipswish`; arguments are taken as valid."""
    return _lipswish(wide(x), wide(beta, like=x)).to(x.dtype)


def clipswish(x: Tensor, beta: Tensor) -> Tensor:
    """See :func:`hybridkern.ops.clipswish`; arguments are taken as valid."""
    given, factor = wide(x), wide(beta, like=x)
    both = torch.cat((_lipswish(given, factor), _lipswish(-given, factor)), 1)
    return (both / PAIR_SLOPE).to(x.dtype)
