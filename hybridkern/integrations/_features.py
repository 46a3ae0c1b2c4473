"""The two sets of features of a coupling with a mask: how they lie, taken apart and put together again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hybridkern.integrations._channels import permuted
from hybridkern.integrations._seen import Seen


@dataclass(frozen=True)
class Arrangement:
    """Which features stay and which are transformed.

    Attributes:
        kept, changed: their indices, as the library holds them.
        seen: these two tensors, which loading a state dict writes into; ``None`` while compiling.
        kind: ``"halves"``, ``"turns"`` (every second feature) or ``"any"``.
        changed_first: whether, in halves or turns, the transformed features come first.
        order, inverse: the features that stay, then the others; and what undoes that.
    """

    kept: Tensor
    changed: Tensor
    seen: Seen | None
    kind: str
    changed_first: bool
    order: Tensor
    inverse: Tensor

    def holds(self, kept: Tensor, changed: Tensor) -> bool:
        """Whether it was made from these indices, as they are now."""
        return self.seen is not None and self.seen.holds((kept, changed))


def arrange(kept: Tensor, changed: Tensor) -> Arrangement:
    """Looks at the indices; while compiling, which cannot, it takes them as any."""
    if torch.compiler.is_compiling():
        order = torch.cat([kept, changed])
        return Arrangement(kept, changed, None, "any", False, order, torch.argsort(order))
    with torch.inference_mode(False):  # it is kept, for training too
        order = torch.cat([kept, changed])
        inverse = torch.argsort(order)
    places = kept.tolist(), changed.tolist()
    size = len(order)
    kind, changed_first = "any", False
    for first, second in (places, places[::-1]):
        by_turns = first == list(range(0, size, 2)) and second == list(range(1, size, 2)) and size % 2 == 0
        if by_turns or first + second == list(range(size)):
            kind, changed_first = "turns" if by_turns else "halves", first is places[1]
            break
    return Arrangement(kept, changed, Seen((kept, changed)), kind, changed_first, order, inverse)


@dataclass(frozen=True)
class Lying:
    """Features ``(B, C, *S)`` in two tensors, as the layer before left them: by halves, or by turns."""

    kind: str
    first: Tensor
    second: Tensor

    def whole(self) -> Tensor:
        """All features in one tensor."""
        pair = [self.first, self.second]
        return torch.stack(pair, 2).flatten(1, 2) if self.kind == "turns" else torch.cat(pair, 1)


def parts(x: Tensor | Lying, by: Arrangement) -> tuple[Tensor, Tensor]:
    """The features that stay, and those that are transformed."""
    sizes = [len(by.kept), len(by.changed)]
    places = sizes[::-1] if by.changed_first else sizes
    if isinstance(x, Lying) and (x.kind != by.kind or [x.first.shape[1], x.second.shape[1]] != places):
        x = x.whole()
    if isinstance(x, Lying):
        first, second = x.first, x.second
    elif by.kind == "any":
        first, second = permuted(x, by.order, by.inverse).split(sizes, 1)
    elif by.kind == "turns":
        first, second = x.unflatten(1, (-1, 2)).unbind(2)
    else:
        first, second = x.split(places, 1)
    return (second, first) if by.changed_first else (first, second)


def joined(kept: Tensor, changed: Tensor, by: Arrangement) -> Tensor | Lying:
    """Undoes :func:`parts`, without a copy for halves and turns."""
    if by.kind == "any":
        return permuted(torch.cat([kept, changed], 1), by.inverse, by.order)
    return Lying(by.kind, changed, kept) if by.changed_first else Lying(by.kind, kept, changed)


def whole(x: Tensor | Lying) -> Tensor:
    """All features in one tensor."""
    return x.whole() if isinstance(x, Lying) else x
