"""``affine_coupling_actnorm`` against FrEIA's all-in-one block in eager PyTorch: split, coupled, joined."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks._case import Work
from hybridkern import ops


def ours(x: Tensor, params: Tensor, scale: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Latent vectors and log-determinant."""
    return ops.affine_coupling_actnorm(x, params, scale, offset)


def eager(x: Tensor, params: Tensor, scale: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """``AllInOneBlock._affine`` with its scaling of the network output, and its global scale and offset after it."""
    coupled = params.shape[1] // 2
    raw, t = (0.1 * params).chunk(2, 1)
    log_s = 2.0 * torch.tanh(0.5 * raw)
    x1, x2 = x.split((x.shape[1] - coupled, coupled), 1)
    y = torch.cat((x1, x2 * torch.exp(log_s) + t), 1) * scale + offset
    return y, log_s.sum(1) + scale.abs().log().sum()


def work(batch: int, size: int) -> Work:
    """Vectors ``(batch, size)`` of which a half is transformed."""
    params = torch.randn(batch, 2 * (size // 2))
    return Work(ours, eager, (torch.randn(batch, size), params, torch.rand(size) + 0.5, torch.randn(size)))
