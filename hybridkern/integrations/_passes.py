"""The outputs of a masked network of nflows or normflows feature by feature, each unit computed once.

All passes together cost the arithmetic of about half a call of the network; the libraries call it once per feature.
What a layer sees is kept as rows ``(units, B)``, in the order in which they are found: what has been found lies in one
piece then. The first row holds ones, and a layer's bias is the first column of its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridkern._autocast import has_autocast
from hybridkern._values import transformed
from hybridkern.integrations._made import Levels, context_layers, is_residual, masked_layers

_ORDERED = "nflows.transforms.made"  # the library whose first activation sees the context alone
_RELU: tuple[object, ...] = (F.relu, torch.relu)


class Activation(NamedTuple):
    """What is applied to new rows.

    Attributes:
        function: of a tensor; ``None``: nothing.
        is_relu: whether it is the one that can be applied in place.
    """

    function: Callable[[Tensor], Tensor] | None
    is_relu: bool


_NONE = Activation(None, False)


def _activation(function: Any) -> Activation:
    return Activation(function, type(function) is nn.ReLU or any(function is known for known in _RELU))


class Rows:
    """Rows ``(1 + count, B)`` that are filled from the top, in place where nothing looks back at them.

    Args:
        like: ``(B, D)``, of their dtype and device.
        counts: how many each step fills.
    """

    def __init__(self, like: Tensor, counts: Sequence[int]) -> None:
        self._in_place = not (torch.is_grad_enabled() or transformed())
        self._dtype, self._lowers = like.dtype, has_autocast(like.device)
        self._matrix = like.new_ones(1, like.shape[0])
        if self._in_place:
            self._matrix = like.new_ones(1 + sum(counts), like.shape[0])
            self._seen = [self._matrix[: 1 + end] for end in accumulate(counts)]
            self._parts = self._matrix[1:].split(list(counts))

    def after(self, k: int) -> Tensor:
        """All rows after step ``k``."""
        return self._seen[k] if self._in_place else self._matrix

    def put(self, k: int, new: Tensor, activation: Activation = _NONE) -> None:
        """The rows of step ``k``: ``activation`` of ``new`` ``(n, B)``."""
        function = activation.function
        if not self._in_place:
            new = new if function is None else function(new)
            # autocast lowers what a product returns: the first block says to what
            self._matrix = torch.cat([self._matrix.to(new.dtype), new])
        elif activation.is_relu and new.dtype is self._dtype:
            torch.clamp_min(new, 0, out=self._parts[k])
        else:
            self._parts[k].copy_(new if function is None else function(new))

    def put_product(self, k: int, weight: Tensor, before: Tensor, added: Tensor | None, activation: Activation) -> None:
        """The rows of step ``k``: ``activation(weight @ before + added)``."""
        if not self._in_place or added is not None or self._lowers:
            new = weight @ before
            self.put(k, new if added is None else new + added, activation)
            return
        part = self._parts[k]
        torch.mm(weight, before, out=part)
        if activation.is_relu:
            part.clamp_min_(0)
        elif activation.function is not None:
            part.copy_(activation.function(part))


class Passes:
    """The network one feature at a time.

    Args:
        net: one that :func:`~hybridkern.integrations._made.is_known`.
        levels: its levels.
        like: ``(B, D)``, of the dtype and device of the features.
        context: ``(B, C)`` or ``None``.
    """

    def __init__(self, net: Any, levels: Levels, like: Tensor, context: Tensor | None) -> None:
        self._net, self._levels, self._is_nflows = net, levels, type(net).__module__ == _ORDERED
        self._contexts = self._on_units(context)
        layers, features = masked_layers(net), len(levels.order)
        weights = torch._foreach_mul([layer.weight for layer in layers], [layer.mask for layer in layers])
        seen, before = levels.places, [1] * features  # a step more than the layers: the first sees no feature
        sizes, self._rows = [0, *before[1:]], [Rows(like, [0, *before[1:]])]
        self._blocks: list[Sequence[Tensor]] = []
        for layer, weight, (units, counts) in zip(layers[:-1], weights[:-1], levels.units, strict=True):
            self._blocks.append(_blocks(weight, layer.bias, units, seen, counts, sizes))
            self._rows.append(Rows(like, counts))
            seen, sizes = units, counts
        outputs = len(layers[-1].bias) // features
        rows = (levels.places[:, None] * outputs + torch.arange(outputs, device=like.device)).view(-1)
        self._last = _blocks(weights[-1], layers[-1].bias, rows, seen, [outputs] * features, sizes)
        self._values: list[Tensor] = []
        activations = [_activation(block.activation) for block in net.blocks]
        self._residual = is_residual(net)
        if not self._residual:
            first = net.activation if self._is_nflows and not net.use_residual_blocks else None
            activations.insert(0, _activation(first) if first is not None else _NONE)
        self._activations = activations
        self._fills = [[count > 0 for count in counts] for _, counts in levels.units]

    def outputs(self, k: int) -> Tensor:
        """Those of the feature ``order[k]``, ``(B, outputs)``; the ``k`` before it must have been added."""
        if self._residual:
            self._residual_blocks(k)
        else:
            self._plain_blocks(k)
        return (self._last[k] @ self._rows[-1].after(k)).T

    def _plain_blocks(self, k: int) -> None:
        for i, activation in enumerate(self._activations):
            if self._fills[i][k]:
                added = self._contexts[0][k] if self._contexts and i == 0 else None
                self._rows[i + 1].put_product(k, self._blocks[i][k], self._rows[i].after(k), added, activation)

    def _residual_blocks(self, k: int) -> None:
        """A layer's rows are what the next one sees: activated, but for the last one."""
        rows, contexts, blocks, fills = self._rows, self._contexts, self._blocks, self._fills
        state = blocks[0][k] @ rows[0].after(k) if fills[0][k] else None
        if state is not None and contexts:
            state = state + contexts[0][k]
        for b, activation in enumerate(self._activations, start=1):
            seen, hidden = rows[2 * b - 1], rows[2 * b]
            if state is not None:
                seen.put(k, state, activation)
            if fills[2 * b - 1][k]:
                added = contexts[b][k] if contexts and self._is_nflows else None
                hidden.put_product(k, blocks[2 * b - 1][k], seen.after(k), added, activation)
            if state is None:
                continue
            if contexts and not self._is_nflows:
                state = state + (blocks[2 * b][k] @ hidden.after(k)) * contexts[b][k].sigmoid()
            else:
                state = torch.addmm(state, blocks[2 * b][k], hidden.after(k))
        if state is not None:
            rows[-1].put(k, state)

    def add(self, value: Tensor, k: int) -> None:
        """The feature ``order[k]``, ``(B, 1)``."""
        self._values.append(value)
        if k + 1 == len(self._levels.order):
            return
        place = self._levels.periodic.get(self._levels.order[k])
        seen = value if place is None else _periodic(self._net.preprocessing, value, place)
        self._rows[0].put(k + 1, seen.T)

    def result(self) -> Tensor:
        """All features, as they stand, ``(B, D)``."""
        order = self._levels.order
        return torch.cat([self._values[k] for k in sorted(range(len(order)), key=order.__getitem__)], 1)

    def _on_units(self, context: Tensor | None) -> list[Sequence[Tensor]]:
        """What the context adds to the units of each level: of the first layer, and of each block."""
        if context is None:
            return []
        units = self._levels.units
        found = [layer(context) for layer in context_layers(self._net)]
        if self._is_nflows:
            found[0] = self._net.activation(found[0])
        places = [units[0], *units[1::2]] if self._is_nflows else [units[0], *units[2::2]]
        return [
            value.T.index_select(0, rows).split(counts) for value, (rows, counts) in zip(found, places, strict=False)
        ]


def _blocks(
    weight: Tensor, bias: Tensor, rows: Tensor, columns: Tensor, counts: list[int], seen: Sequence[int]
) -> Sequence[Tensor]:
    """For each step the rows ``(n, 1 + m)`` of a layer that it fills, of the ``m`` columns that it sees."""
    both = torch.cat([bias[:, None], weight.index_select(1, columns)], 1).index_select(0, rows)
    ends = accumulate(seen)
    return [block[:, : 1 + end] for block, end in zip(both.split(counts), ends, strict=True)]


def _periodic(layer: Any, value: Tensor, j: int) -> Tensor:
    """The ``j``-th periodic feature of ``PeriodicFeaturesElementwise``."""
    scale = layer.scale[j] if isinstance(layer.scale, Tensor) and layer.scale.ndim else layer.scale
    turned = scale * value
    made: Tensor = layer.weights[j, 0] * torch.sin(turned) + layer.weights[j, 1] * torch.cos(turned)
    return made + layer.bias[j] if layer.apply_bias else made
