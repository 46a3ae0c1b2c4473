"""LipSwish and CLipSwish in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hybridkern._precision import wide

SLOPE = 1.1  # the derivative of x sigmoid(bx) is at most 1.0998, whatever b
PAIR_SLOPE = 1.004  # the derivatives of both outputs together: sqrt(1.0998^2 + 0.0998^2) / 1.1 = 1.0039


def by_factor(x: Tensor, b: Tensor, paired: bool) -> Tensor:
    """Both, from ``b = softplus(beta)``; ``paired``: CLipSwish."""
    given, factor = wide(x), wide(b, like=x).reshape(())
    value = given * torch.sigmoid(factor * given) / SLOPE
    if paired:
        value = torch.cat((value, -given * torch.sigmoid(-factor * given) / SLOPE), 1) / PAIR_SLOPE
    return value.to(x.dtype)


def backward_by_factor(grad: Tensor, x: Tensor, b: Tensor, paired: bool) -> tuple[Tensor, Tensor]:
    """Gradients of ``x`` and ``b`` from that of the value, in formulas that can be differentiated in turn."""
    given, factor, incoming = wide(x), wide(b, like=x).reshape(()), wide(grad, like=x)
    first, second = incoming.chunk(2, 1) if paired else (incoming, torch.zeros_like(incoming))
    both, scale = first + second, 1 / (SLOPE * PAIR_SLOPE) if paired else 1 / SLOPE
    s = torch.sigmoid(factor * given)
    slope = s * torch.sigmoid(-factor * given)
    to_x = scale * (both * (s + factor * given * slope) - second)
    to_b = scale * (both * given * (given * slope)).sum()
    return to_x.to(x.dtype), to_b.reshape(b.shape).to(b.dtype)


def lipswish(x: Tensor, beta: Tensor) -> Tensor:
    """See :func:`hybridkern.ops.lipswish`; arguments are taken as valid."""
    return by_factor(x, F.softplus(wide(beta, like=x)), False)


def clipswish(x: Tensor, beta: Tensor) -> Tensor:
    """See :func:`hybridkern.ops.clipswish`; arguments are taken as valid."""
    return by_factor(x, F.softplus(wide(beta, like=x)), True)
