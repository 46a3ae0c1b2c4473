"""``affine_coupling``, form ``"glow"``, against the eager formula of rosinality/glow-pytorch (``AffineCoupling``)."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks._case import Work
from hybridkern import ops


def ours(x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
    """Latent half and log-determinant."""
    return ops.affine_coupling(x, params, form="glow")


def eager(x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
    """The formula as that repository has it, for one half."""
    log_s, t = params.chunk(2, 1)
    s = torch.sigmoid(log_s + 2)
    y = (x + t) * s
    return y, torch.sum(torch.log(s).flatten(1), 1)


def work(*shape: int) -> Work:
    """``x`` of ``shape``, parameters with twice the channels."""
    params = torch.randn(shape[0], 2 * shape[1], *shape[2:])
    return Work(ours, eager, (torch.randn(shape), params))
