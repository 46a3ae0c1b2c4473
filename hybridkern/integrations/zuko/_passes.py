"""The inverse of an autoregressive map: each unit of its masked network is computed once, in the pass that needs it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from zuko.nn import MaskedLinear, Residual

from hybridkern.integrations.zuko._masked import Layers, masked_layers
from hybridkern.integrations.zuko._plan import Part, Plan
from hybridkern.integrations.zuko.univariate import Univariate
from hybridkern.nets.passes import Rows

Block = tuple[Tensor, Tensor]


class _Units:
    """A layer whose units are added pass by pass, ``(units, B)``."""

    def __init__(self, part: Part, layer: MaskedLinear, like: Tensor) -> None:
        self.blocks = _blocks(part, layer)
        self.condition: list[Tensor] = []
        self.activation: Any = None
        self.rows = Rows(like, len(part.order))

    def new(self, k: int, before: Tensor) -> Tensor | None:
        """Those of a pass, from all inputs that are known by then."""
        weight, bias = self.blocks[k]
        if not len(bias):
            return None
        out = torch.addmm(bias[:, None], weight[:, : before.shape[0]], before)
        if self.condition:
            out = out + self.condition[k]
        return out if self.activation is None else self.activation(out)

    def outputs(self, k: int, before: Tensor) -> Tensor:
        """Those of a pass as the operators take them, ``(B, units)``."""
        weight, bias = self.blocks[k]
        out = torch.addmm(bias, before.T, weight[:, : before.shape[0]].T)
        return out + self.condition[k].T if self.condition else out

    def __call__(self, k: int, before: Tensor) -> Tensor:
        """All that are known in a pass."""
        new = self.new(k, before)
        if new is not None:
            self.rows.add(new)
        return self.rows.now()


class _Block:
    """A residual block likewise: its units are added to those that it was given."""

    def __init__(self, inner: _Units, outer: _Units, places: list[list[int]]) -> None:
        self.inner, self.outer, self.places = inner, outer, places
        self.activation: Any = None

    def __call__(self, k: int, before: Tensor) -> Tensor:
        """All that are known in a pass."""
        new = self.outer.new(k, self.inner(k, before))
        if new is not None:
            out = _picked(before, self.places[k]) + new
            self.outer.rows.add(out if self.activation is None else self.activation(out))
        return self.outer.rows.now()


def undone(
    plan: Plan, layers: Layers, univariate: Univariate, y: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The inverse and its log-determinant.

    Args:
        plan, layers: of the network.
        univariate: the map of one number.
        y: ``(..., D)``.
        context: ``(*, c)``, whose batch broadcasts to that of ``y``.

    Returns:
        ``x`` like ``y``, and ``log|det dx/dy|`` ``(...)``.
    """
    flat = y.reshape(-1, y.shape[-1])
    values = Rows(flat, y.shape[-1])
    steps, last, condition = _network(plan, layers, flat)
    if condition is not None:
        assert context is not None
        _condition(condition, plan, masked_layers(layers)[0], context, y.shape[:-1])
    given = flat.T.index_select(0, plan.order)
    log_det, start = None, 0
    for k, count in enumerate(plan.features):
        before = values.now()
        for step in steps:
            before = step(k, before)
        value, log_det = univariate(given[start : start + count].T, last.outputs(k, before), log_det, inverse=True)
        values.add(value.T)
        start += count
    assert log_det is not None
    x = values.now().index_select(0, plan.places).T.contiguous()
    return x.reshape(y.shape), log_det.reshape(y.shape[:-1])


def _network(plan: Plan, layers: Layers, like: Tensor) -> tuple[list[Any], _Units, _Units | None]:
    """The hidden layers, the last layer, and the one that sees the context."""
    parts, skips = list(plan.parts), list(plan.skips)
    steps: list[Any] = []
    first: _Units | None = None
    for layer in layers:
        if type(layer) is MaskedLinear:
            steps.append(_Units(parts.pop(0), layer, like))
        elif type(layer) is Residual:
            inner, outer = (_Units(parts.pop(0), layer[place], like) for place in (0, 2))
            inner.activation = layer[1]
            steps.append(_Block(inner, outer, skips.pop(0)))
        else:
            steps[-1].activation = _then(steps[-1].activation, layer)
        first = first or steps[0]
    last = steps.pop()
    return steps, last, first if plan.parts[0].context.shape[1] else None


def _then(first: Any, second: Any) -> Any:
    return second if first is None else lambda x: second(first(x))


def _blocks(part: Part, layer: MaskedLinear) -> list[Block]:
    """Weights and biases of each pass; zeros where the mask has them."""
    weight, rows = layer.weight, part.rows
    sorted_weight = weight.index_select(0, rows).index_select(1, part.columns) * part.mask.to(weight.dtype)
    bias = layer.bias.index_select(0, rows)
    return list(zip(sorted_weight.split(part.counts), bias.split(part.counts), strict=True))


def _condition(units: _Units, plan: Plan, layer: MaskedLinear, context: Tensor, batch: torch.Size) -> None:
    """What the context adds to the first layer; computed once for each context, and not for each example."""
    part = plan.parts[0]
    weight = layer.weight[:, -context.shape[-1] :].index_select(0, part.rows) * part.context.to(layer.weight.dtype)
    own = weight @ context.reshape(-1, context.shape[-1]).T
    missing = (1,) * (len(batch) - context.ndim + 1)
    every = own.reshape(len(own), *missing, *context.shape[:-1]).expand(-1, *batch)
    units.condition = list(every.reshape(len(own), -1).split(part.counts))


def _picked(x: Tensor, places: list[int]) -> Tensor:
    if places == list(range(places[0], places[0] + len(places))):
        return x[places[0] : places[0] + len(places)]
    return x[places]
