"""``lipswish`` and its gradient, differentiated again, against the formula of rtqichen/residual-flows (``Swish``)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks._case import Work
from hybridkern import ops


def _with_gradient(
    function: Callable[[Tensor, Tensor], Tensor], x: Tensor, beta: Tensor, v: Tensor
) -> tuple[Tensor, ...]:
    """The value and ``v^T J``, as a residual flow takes them once per layer and step."""
    with torch.enable_grad():
        value = function(x, beta)
        return value, *torch.autograd.grad(value, x, v, create_graph=True)


def ours(x: Tensor, beta: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """Value and gradient."""
    return _with_gradient(ops.lipswish, x, beta, v)


def eager(x: Tensor, beta: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """The same by the formula."""
    return _with_gradient(lambda x, beta: (x * torch.sigmoid(x * F.softplus(beta))).div_(1.1), x, beta, v)


def work(batch: int, dim: int) -> Work:
    """``x`` and ``v`` ``(batch, dim)``."""
    return Work(ours, eager, (torch.randn(batch, dim), torch.full((1,), 0.5), torch.randn(batch, dim)))
