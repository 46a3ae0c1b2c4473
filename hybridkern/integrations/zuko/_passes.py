"""The inverse of an autoregressive map: each unit of its masked network is computed once, in the pass that needs it.

What a layer sees is kept as rows ``(units, B)`` in the order of the passes: what is known lies in one piece then.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from zuko.nn import MaskedLinear, Residual

from hybridkern._autocast import has_autocast
from hybridkern.integrations.zuko._masked import Layers, masked_layers
from hybridkern.integrations.zuko._plan import Part, Plan
from hybridkern.integrations.zuko.univariate import Univariate


class _Rows:
    """Rows ``(units, B)`` that are filled from the top, in place where nothing looks back at them.

    Args:
        like: ``(B, D)``, of their dtype and device.
        counts: how many each pass fills.
    """

    def __init__(self, like: Tensor, counts: Sequence[int]) -> None:
        self.in_place = not (torch.is_grad_enabled() or has_autocast(like.device))
        self._matrix = like.new_empty(sum(counts) if self.in_place else 0, like.shape[0])
        if self.in_place:
            self.parts = self._matrix.split(list(counts))
            self._known = [self._matrix[:end] for end in accumulate(counts, initial=0)]

    def before(self, k: int) -> Tensor:
        """All rows before pass ``k``."""
        return self._known[k] if self.in_place else self._matrix

    def put(self, k: int, new: Tensor) -> None:
        """The rows ``(n, B)`` of pass ``k``."""
        if self.in_place:
            self.parts[k].copy_(new)
        else:
            # autocast lowers what a product returns: the first rows say to what
            self._matrix = torch.cat([self._matrix.to(new.dtype), new])


class _Units:
    """A layer whose units are added pass by pass."""

    def __init__(self, part: Part, layer: MaskedLinear, like: Tensor, seen: Sequence[int]) -> None:
        self.counts = part.counts
        self.blocks = _blocks(part, layer, seen)
        self.condition: Sequence[Tensor] = []
        self.activations: list[Any] = []
        self.rows = _Rows(like, part.counts)

    def new(self, k: int, given: Tensor, into: Tensor | None = None) -> Tensor:
        """Those of a pass before their activation, from all inputs that are known by then."""
        weight, bias = self.blocks[k]
        out = torch.addmm(bias, weight, given) if into is None else torch.addmm(bias, weight, given, out=into)
        if self.condition:
            return out.add_(self.condition[k]) if into is not None else out + self.condition[k]
        return out

    def __call__(self, k: int, given: Tensor) -> Tensor:
        """All that are known in a pass."""
        if not self.counts[k]:
            return self.rows.before(k + 1)
        if not self.rows.in_place:
            self.rows.put(k, _activated(self.activations, self.new(k, given)))
            return self.rows.before(k + 1)
        part = self.rows.parts[k]
        self.new(k, given, part)
        for activation in self.activations:
            if type(activation) is nn.ReLU:
                part.clamp_min_(0)
            else:
                part.copy_(activation(part))
        return self.rows.before(k + 1)


class _Block:
    """A residual block likewise: its units are added to those that it was given."""

    def __init__(self, inner: _Units, outer: _Units, places: list[list[int]]) -> None:
        self.inner, self.outer, self.places = inner, outer, places
        self.activations: list[Any] = []

    def __call__(self, k: int, given: Tensor) -> Tensor:
        """All that are known in a pass."""
        hidden, outer = self.inner(k, given), self.outer
        if outer.counts[k]:
            outer.rows.put(k, _activated(self.activations, _picked(given, self.places[k]) + outer.new(k, hidden)))
        return outer.rows.before(k + 1)


def undone(
    plan: Plan, layers: Layers, univariate: Univariate, y: Tensor, context: Tensor | None, ladj: bool
) -> tuple[Tensor, Tensor | None]:
    """The inverse and its log-determinant.

    Args:
        plan, layers: of the network.
        univariate: the map of one number.
        y: ``(..., D)``.
        context: ``(*, c)``, whose batch broadcasts to that of ``y``.
        ladj: whether the log-determinant is asked for.

    Returns:
        ``x`` like ``y``, and ``log|det dx/dy|`` ``(...)`` or ``None``.
    """
    flat = y.reshape(-1, y.shape[-1])
    values = _Rows(flat, plan.features)
    steps, last, first = _network(plan, layers, flat)
    if context is not None:
        first.condition = _condition(plan.parts[0], masked_layers(layers)[0], context, y.shape[:-1])
    given = flat.T.index_select(0, plan.order).split(plan.features)
    log_det = flat.new_zeros(len(flat)) if ladj else None
    for k, part in enumerate(given):
        known = values.before(k)
        for step in steps:
            known = step(k, known)
        value, log_det = univariate.undone(part, last.new(k, known), log_det)
        values.put(k, value)
    x = values.before(len(given)).index_select(0, plan.places).T.contiguous()
    return x.reshape(y.shape), None if log_det is None else log_det.reshape(y.shape[:-1])


def _network(plan: Plan, layers: Layers, like: Tensor) -> tuple[list[Any], _Units, _Units]:
    """The hidden layers, the last layer, and the first one."""
    parts, skips = list(plan.parts), list(plan.skips)
    seen = [0, *accumulate(plan.features[:-1])]  # what the first layer sees in each pass
    every: list[_Units] = []
    steps: list[Any] = []

    def units(layer: Any) -> _Units:
        nonlocal seen
        part = parts.pop(0)
        every.append(_Units(part, layer, like, seen))
        seen = list(accumulate(part.counts))
        return every[-1]

    for layer in layers:
        if type(layer) is MaskedLinear:
            steps.append(units(layer))
        elif type(layer) is Residual:
            inner, outer = units(layer[0]), units(layer[2])
            inner.activations.append(layer[1])
            steps.append(_Block(inner, outer, skips.pop(0)))
        else:
            steps[-1].activations.append(layer)
    return steps[:-1], every[-1], every[0]


def _activated(activations: Sequence[Any], x: Tensor) -> Tensor:
    for activation in activations:
        x = activation(x)
    return x


def _blocks(part: Part, layer: MaskedLinear, seen: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Weights, with zeros where the mask has them, for what is seen in each pass; and biases ``(n, 1)``."""
    weight, rows = layer.weight, part.rows
    every = weight.index_select(0, rows).index_select(1, part.columns) * part.mask.to(weight.dtype)
    biases = layer.bias.index_select(0, rows).unsqueeze(1).split(part.counts)
    return [(w[:, :size], b) for w, b, size in zip(every.split(part.counts), biases, seen, strict=True)]


def _condition(part: Part, layer: MaskedLinear, context: Tensor, batch: torch.Size) -> Sequence[Tensor]:
    """What the context adds to the first layer; computed once for each context, and not for each example."""
    weight = layer.weight[:, -context.shape[-1] :].index_select(0, part.rows) * part.context.to(layer.weight.dtype)
    own = weight @ context.reshape(-1, context.shape[-1]).T
    missing = (1,) * (len(batch) - context.ndim + 1)
    every = own.reshape(len(own), *missing, *context.shape[:-1]).expand(-1, *batch)
    return every.reshape(len(own), -1).split(part.counts)


def _picked(x: Tensor, places: list[int]) -> Tensor:
    if places == list(range(places[0], places[0] + len(places))):
        return x[places[0] : places[0] + len(places)]
    return x[places]
