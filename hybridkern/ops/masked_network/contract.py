"""What the registered parts of ``masked_network`` ask of their arguments."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hybridkern import _tensors
from hybridkern.ops import _rules
from hybridkern.ops._rules import Contracts
from hybridkern.ops.masked_network.reference import ACTIVATIONS

LANES, MOST_LAYERS = 16, 250  # as in csrc/masked_network


def _network(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    masks: Sequence[Tensor],
    plan: Sequence[int],
    activation: int,
    save: bool = False,
) -> None:
    _rules.working("x", x, 2)
    if not 1 <= len(weights) <= MOST_LAYERS:
        raise ValueError(f"weights: got {len(weights)} tensors, expected 1 to {MOST_LAYERS}")
    for name, values in (("biases", biases), ("masks", masks), ("plan", plan)):
        if len(values) != len(weights):
            raise ValueError(f"{name}: got {len(values)}, expected {len(weights)}, one for each of weights")
    inputs = x.shape[1]
    for i, (weight, bias, mask) in enumerate(zip(weights, biases, masks, strict=True)):
        if weight.ndim != 2:
            shape = _tensors.shape_text(weight.shape)
            raise ValueError(f"weights[{i}]: got shape {shape}, expected (units, {inputs})")
        units = weight.shape[0]
        _rules.same(f"weights[{i}]", weight, "x", x, (units, inputs))
        _rules.same(f"biases[{i}]", bias, "x", x, (units,))
        _rules.same(f"masks[{i}]", mask, "x", x, (units, inputs))
        inputs = units
    if plan[-1] % 2:
        raise ValueError("plan: got an activation of the last layer, expected one of hidden layers alone")
    if not 0 <= activation < len(ACTIVATIONS):
        raise ValueError(f"activation: got {activation}, expected a place in {', '.join(ACTIVATIONS)}")
    for i, code in enumerate(plan):
        if not 0 <= code < 2 * (i + 1):
            raise ValueError(f"plan[{i}]: got {code}, expected an earlier layer to add, or none")
        if code > 1:
            _rules.shape(f"weights[{i}]", weights[i], (weights[code // 2 - 1].shape[0], weights[i].shape[1]))


def _backward(
    grad: Tensor,
    x: Tensor,
    hidden: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    masks: Sequence[Tensor],
    plan: Sequence[int],
    activation: int,
    wants_x: bool,
) -> None:
    _network(x, weights, biases, masks, plan, activation)
    _rules.same("grad", grad, "x", x, (x.shape[0], weights[-1].shape[0]))
    _rules.same("hidden", hidden, "x", x, (x.shape[0] * kept_numbers(weights),))


def kept_numbers(weights: Sequence[Tensor]) -> int:
    """Numbers that forward keeps for each example: rows of every layer but the last, ``masked_row`` of the kernels."""
    return sum(((weight.shape[0] + LANES - 1) // LANES | 1) * LANES for weight in weights[:-1])


CONTRACTS: Contracts = {"forward": _network, "backward": _backward}
