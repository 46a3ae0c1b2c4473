"""The two sets of features of a coupling with a mask: how they lie, taken apart and put together again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hybridkern.integrations._channels import permuted


@dataclass(frozen=True)
class Arrangement:
    """Which features stay and which are transformed.

    Attributes:
        kept, changed: their indices, as the library holds them.
        versions: of these two tensors, which loading a state dict writes into.
        kind: ``"halves"``, ``"turns"`` (every second feature) or ``"any"``.
        changed_first: whether, in halves or turns, the transformed features come first.
        order, inverse: the features that stay, then the others; and what undoes that.
    """

    kept: Tensor
    changed: Tensor
    versions: tuple[int, int]
    kind: str
    changed_first: bool
    order: Tensor
    inverse: Tensor

    def holds(self, kept: Tensor, changed: Tensor) -> bool:
        """Whether it was made from these indices, as they are now."""
        return self.kept is kept and self.changed is changed and self.versions == _versions(kept, changed)


def _versions(kept: Tensor, changed: Tensor) -> tuple[int, int]:
    return tuple(0 if value.is_inference() else value._version for value in (kept, changed))  # type: ignore[return-value]


def arrange(kept: Tensor, changed: Tensor) -> Arrangement:
    """Looks at the indices; while compiling, which cannot, it takes them as any."""
    order = torch.cat([kept, changed])
    inverse = torch.argsort(order)
    if torch.compiler.is_compiling():
        return Arrangement(kept, changed, (0, 0), "any", False, order, inverse)
    places = kept.tolist(), changed.tolist()
    size = len(order)
    kind, changed_first = "any", False
    for first, second in (places, places[::-1]):
        by_turns = first == list(range(0, size, 2)) and second == list(range(1, size, 2)) and size % 2 == 0
        if by_turns or first + second == list(range(size)):
            kind, changed_first = "turns" if by_turns else "halves", first is places[1]
            break
    return Arrangement(kept, changed, _versions(kept, changed), kind, changed_first, order, inverse)


def parts(x: Tensor, by: Arrangement) -> tuple[Tensor, Tensor]:
    """The features of ``x`` ``(B, C, *S)`` that stay, and those that are transformed."""
    sizes = [len(by.kept), len(by.changed)]
    if by.kind == "any":
        first, second = permuted(x, by.order, by.inverse).split(sizes, 1)
        return first, second
    first, second = x.unflatten(1, (-1, 2)).unbind(2) if by.kind == "turns" else x.split(_swapped(sizes, by), 1)
    return (second, first) if by.changed_first else (first, second)


def joined(kept: Tensor, changed: Tensor, by: Arrangement) -> Tensor:
    """Undoes :func:`parts`."""
    if by.kind == "any":
        return permuted(torch.cat([kept, changed], 1), by.inverse, by.order)
    pair = _swapped([kept, changed], by)
    return torch.stack(pair, 2).flatten(1, 2) if by.kind == "turns" else torch.cat(pair, 1)


def _swapped(pair: list[Any], by: Arrangement) -> list[Any]:
    return pair[::-1] if by.changed_first else pair
