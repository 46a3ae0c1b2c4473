"""Integer-rounding coupling in plain PyTorch, with the straight-through gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern._precision import like


def _round_straight_through(x: Tensor) -> Tensor:
    """``x`` rounded half to even, exactly, with the derivative 1 of the zero that is added.

    No ``autograd.Function``: its forward mode and ``vmap`` would keep ``torch.compile`` from tracing it.
    """
    return torch.round(x.detach()) + torch.where(x.isfinite(), x - x.detach(), 0.0)


def rounding_coupling(x: Tensor, t: Tensor, beta: Tensor | None, inverse: bool) -> Tensor:
    """See :func:`hybridkern.ops.rounding_coupling`; arguments are taken as valid.

    The product ``beta * t`` is formed in the working precision (float64 for float64 ``x``, else float32), never in
    a wider one: every backend must round the very same number.
    """
    working = torch.float64 if x.dtype is torch.float64 else torch.float32
    shift = t.to(working) if beta is None else beta.to(working).reshape(()) * t.to(working)
    step = _round_straight_through(shift)
    return like(x.to(working) - step if inverse else x.to(working) + step, x)
