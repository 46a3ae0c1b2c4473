"""One integer coupling of two halves with the reversal that follows it, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern.ops.rounding_coupling.reference import rounding_coupling


def rounding_coupling_mirrored(a: Tensor, b: Tensor, t: Tensor, beta: Tensor, index: int, exact: bool) -> Tensor:
    """See ``operator.py``; arguments are taken as valid."""
    factor = beta[index]
    if exact:
        y = rounding_coupling(b, t, factor, False)
    else:
        y = b + factor * rounding_coupling(torch.zeros_like(t), t, None, False)
    return torch.cat((a, y), 1).flip(1)
