"""The convolutional coupling network of Glow in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hybridkern._precision import wide
from hybridkern._values import transformed


def coupling_network(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor, bf16: bool
) -> Tensor:
    """See :func:`hybridkern.ops.coupling_network`; arguments are taken as valid.

    With ``bf16``, what the products read is rounded to bfloat16 (``x``, weights, hidden activations, and through
    autograd their gradients); biases and sums stay wide.
    """
    if x.numel() == 0:  # F.conv2d takes no empty image
        nothing = torch.stack([value.sum() for value in (x, w1, b1, w2, b2, w3, b3)]).sum() * 0
        return nothing.to(x.dtype).expand(x.shape[0], w3.shape[0], *x.shape[2:]).contiguous()

    def low(value: Tensor) -> Tensor:
        return wide(value.to(torch.bfloat16) if bf16 else value)

    h = low(torch.relu(F.conv2d(low(x), low(w1), wide(b1), padding=1)).to(x.dtype))
    h = low(torch.relu(F.conv2d(h, low(w2), wide(b2))).to(x.dtype))
    params = F.conv2d(h, low(w3), wide(b3), padding=1).to(x.dtype)
    return params if transformed() else params.contiguous(memory_format=torch.channels_last)
