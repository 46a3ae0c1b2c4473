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
    return _results(x, weights, biases, masks, plan, activation)[-1]


def _results(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    masks: Sequence[Tensor],
    plan: Sequence[int],
    activation: int,
) -> list[Tensor]:
    """``x``, and what each layer gives."""
    activate = list(ACTIVATIONS.values())[activation]
    given = [x]
    sums: list[Tensor] = []
    for weight, bias, mask, code in zip(weights, biases, masks, plan, strict=True):
        own = F.linear(given[-1], weight * mask, bias)
        sums.append(own + sums[code // 2 - 1] if code > 1 else own)
        given.append(activate(sums[-1]) if code % 2 else sums[-1])
    return given


def gradients(
    grad: Tensor,
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    masks: Sequence[Tensor],
    plan: Sequence[int],
    activation: int,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Gradients of ``x``, weights and biases written out, for a batch of ``grad`` in autograd's older ``vmap``."""
    name = list(ACTIVATIONS)[activation]
    given = _results(x, weights, biases, masks, plan, activation)
    added: dict[int, Tensor] = {}
    of_weights: list[Tensor] = []
    of_biases: list[Tensor] = []
    for i in reversed(range(len(plan))):
        own = grad * _SLOPES[name](given[i + 1]) if plan[i] % 2 else grad
        own = own + added[i] if i in added else own
        if plan[i] > 1:
            place = plan[i] // 2 - 1
            added[place] = added[place] + own if place in added else own
        of_weights.insert(0, own.t().mm(given[i]) * masks[i])
        of_biases.insert(0, own.sum(0))
        grad = own.mm(weights[i] * masks[i])
    return grad, of_weights, of_biases


# Derivatives by the results of the activations.
_SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "none": torch.ones_like,
    "relu": lambda y: (y > 0).to(y.dtype),
    "tanh": lambda y: 1 - y * y,
    "elu": lambda y: torch.where(y > 0, torch.ones_like(y), y + 1),
}
