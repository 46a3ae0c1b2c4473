"""The network of those that have nothing to see."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hybridkern._arguments import as_size
from hybridkern._saved.built import Built


class Constant(Built, nn.Module):
    """Learnt numbers, the same for every example; they start at zero.

    Args:
        out_features: how many.

    Raises:
        TypeError, ValueError: not a positive integer.
    """

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(as_size("out_features", out_features)))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` ``(B, n)``, of which only the size of the batch counts, ``n`` may be 0 -> ``(B, out_features)``."""
        return self.value.expand(x.shape[0], -1)
