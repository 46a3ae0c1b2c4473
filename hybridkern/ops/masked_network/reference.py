"""A masked network in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "elu": F.elu,
}


def masked_network(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    masks: Sequence[Tensor],
    plan: Sequence[int],
    activation: int,
) -> Tensor:
    """As the public function; each number of ``plan`` is ``2 * (layer to add, from 1; 0 for none) + activated``."""
    activate = list(ACTIVATIONS.values())[activation]
    sums: list[Tensor] = []
    for weight, bias, mask, code in zip(weights, biases, masks, plan, strict=True):
        own = F.linear(x, weight * mask, bias)
        sums.append(own + sums[code // 2 - 1] if code > 1 else own)
        x = activate(sums[-1]) if code % 2 else sums[-1]
    return x
