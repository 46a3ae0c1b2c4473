"""The outputs of a masked network feature by feature, as the inverse of an autoregressive map needs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hybridkern._calls import has_hooks
from hybridkern._values import transformed
from hybridkern.nets.masked import MADE, MaskedLinear


class Rows:
    """A matrix ``(count, B)`` that is filled from the top, in place where nothing looks back at it.

    Rows and not columns: what has been filled lies in one piece, with or without gradients, and so is multiplied to
    the same bits.

    Args:
        like: tensor ``(B, ...)`` of the dtype and device of the matrix.
        count: rows in the end.
    """

    def __init__(self, like: Tensor, count: int) -> None:
        self._in_place = not (torch.is_grad_enabled() or torch.compiler.is_compiling() or transformed())
        self._matrix = like.new_empty(count if self._in_place else 0, like.shape[0])
        self._size = 0

    def add(self, block: Tensor) -> None:
        """``block`` ``(n, B)`` below what there is."""
        # autocast lowers what a layer returns: the first block says to what
        self._matrix = self._matrix.to(block.dtype)
        if self._in_place:
            self._matrix[self._size : self._size + block.shape[0]] = block
        else:
            self._matrix = torch.cat([self._matrix, block])
        self._size += block.shape[0]

    def now(self) -> Tensor:
        """What has been filled, ``(size, B)``."""
        return self._matrix[: self._size] if self._in_place else self._matrix


class Passes:
    """The outputs of a :class:`MADE` one feature at a time; each hidden unit is computed once, in the first pass that
    needs it. All passes together cost the arithmetic of one call of the network, or less.

    Args:
        net: the network; see :func:`in_blocks`.
        like: ``(B, ...)``, of the dtype and device of the features.
        context: ``(B, context)`` or ``None``.
    """

    def __init__(self, net: MADE, like: Tensor, context: Tensor | None) -> None:
        self.net = net
        self.values = Rows(like, net.features)
        self.hidden = [Rows(like, sum(counts)) for counts in net.units]
        layers = [layer for layer in net.layers if isinstance(layer, MaskedLinear)]
        # under their masks, as a call has them: someone may have left out more than the order does
        masked = [layer.masked_weight() for layer in layers]
        weights = [_picked(masked[0], 1, net.order), *masked[1:]]
        self._blocks = [
            _split(weight, layer.bias, counts)
            for weight, layer, counts in zip(weights[:-1], layers[:-1], net.units, strict=True)
        ]
        self._last = _split(weights[-1], layers[-1].bias, [net.outputs] * net.features)
        condition = None if net.condition is None else net.condition(context)
        counts = net.units[0] if net.units else [net.outputs] * net.features
        self._condition = None if condition is None else condition.T.split(counts)

    def outputs(self, k: int) -> Tensor:
        """Those of the feature ``net.order[k]``, ``(B, outputs)``; the ``k`` before it must have been added."""
        before = self.values.now()
        for i, (hidden, blocks) in enumerate(zip(self.hidden, self._blocks, strict=True)):
            weight, bias = blocks[k]
            if len(bias):
                new = _affine(weight, bias, before)
                if i == 0 and self._condition is not None:
                    new = new + self._condition[k]
                hidden.add(self.net.activations[i](new))
            before = hidden.now()
        feature = self.net.order[k]
        out = _affine(*self._last[feature], before)
        if not self.hidden and self._condition is not None:
            out = out + self._condition[feature]
        return out.T

    def add(self, value: Tensor) -> None:
        """The next feature of the order, ``(B, 1)``."""
        self.values.add(value.T)

    def result(self) -> Tensor:
        """All features, as they stand, ``(B, features)``."""
        order = self.net.order
        return _picked(self.values.now(), 0, sorted(range(len(order)), key=order.__getitem__)).T.contiguous()


class WholePasses:
    """The same by a whole call of any network per feature.

    Args:
        net: ``(x, context)`` to ``(B, features * outputs)``, those of a feature together.
        order: the features in the order in which they are computed.
        outputs: numbers per feature.
        like, context: as :class:`Passes` takes them.
    """

    def __init__(
        self, net: Callable[..., Tensor], order: tuple[int, ...], outputs: int, like: Tensor, context: Tensor | None
    ) -> None:
        self._call, self.order, self._outputs, self._context = net, order, outputs, context
        self._features = list(like.new_zeros(like.shape[0], len(order)).split(1, 1))
        self._size = 0

    def outputs(self, k: int) -> Tensor:
        """As :meth:`Passes.outputs`."""
        every = self._call(torch.cat(self._features, 1), self._context)
        own: Tensor = every.unflatten(1, (len(self.order), self._outputs))[:, self.order[k]]
        return own

    def add(self, value: Tensor) -> None:
        """As :meth:`Passes.add`."""
        self._features[self.order[self._size]] = value
        self._size += 1

    def result(self) -> Tensor:
        """As :meth:`Passes.result`."""
        return torch.cat(self._features, 1)


def in_blocks(net: nn.Module) -> bool:
    """Whether the layers of ``net`` may be read instead of called: a :class:`MADE` that nobody watches or changed."""
    if type(net) is not MADE or net.features == 1 or "forward" in net.__dict__:
        return False
    plain = all(type(layer) is MaskedLinear and "forward" not in layer.__dict__ for layer in net.layers)
    return plain and not has_hooks(net.modules())


def _picked(x: Tensor, dim: int, places: Sequence[int]) -> Tensor:
    """``x`` with the rows or columns in this order; not by an index, whose backward pass cannot be batched."""
    if list(places) == list(range(len(places))):
        return x
    parts = x.split(1, dim)
    return torch.cat([parts[place] for place in places], dim)


def _affine(weight: Tensor, bias: Tensor, before: Tensor) -> Tensor:
    """Units ``(n, B)`` from the first columns of their weights."""
    return torch.addmm(bias[:, None], weight[:, : before.shape[0]], before)


def _split(weight: Tensor, bias: Tensor, counts: list[int]) -> list[tuple[Tensor, Tensor]]:
    """The rows of a layer in blocks of these sizes."""
    return list(zip(weight.split(counts), bias.split(counts), strict=True))
