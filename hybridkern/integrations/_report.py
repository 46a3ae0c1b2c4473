"""What :func:`~hybridkern.integrations.accelerate` did, layer by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One module of the model.

    Attributes:
        path: its name in ``model.named_modules()``; empty for the model itself.
        kind: its class in its library, as in ``"nflows.transforms.coupling.AffineCouplingTransform"``.
        reason: what is done in its place, or why it is left.
    """

    path: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Report:
    """What is faster now, what has nothing to gain and what is not supported; ``print`` shows it grouped by class.

    These three groups hold every layer and base distribution of the libraries once: what they are made of inside
    is not counted, nor what only runs other layers (a model, a sequence, a Glow block), nor networks. ``replaced``
    and ``left`` are about modules: all those of the libraries, by whether their class was swapped.

    Attributes:
        faster: layers that hybridkern computes now.
        no_gain: layers that stay as they are because they would not be faster.
        unsupported: layers that stay as they are because hybridkern does not compute them.
        networks: coupling networks of the layers that are faster now, and how they are called.
        replaced: modules whose class was swapped.
        left: modules of the libraries that stay what they were.
    """

    faster: tuple[Entry, ...]
    no_gain: tuple[Entry, ...]
    unsupported: tuple[Entry, ...]
    networks: tuple[Entry, ...]
    replaced: tuple[Entry, ...]
    left: tuple[Entry, ...]

    def __str__(self) -> str:
        groups = (
            ("faster now", self.faster),
            ("nothing to gain", self.no_gain),
            ("not supported", self.unsupported),
        )
        lines = []
        for title, entries in groups:
            lines.append(f"{title}: {len(entries)} {'layer' if len(entries) == 1 else 'layers'}")
            lines += [f"  {line}" for line in _grouped(entries)]
        if self.networks:
            lines += ["networks of the couplings:", *(f"  {line}" for line in _grouped(self.networks))]
        return "\n".join(lines)


def _grouped(entries: Iterable[Entry]) -> list[str]:
    counts = Counter((entry.kind, entry.reason) for entry in entries)
    return [f"{count} x {kind}: {reason}" for (kind, reason), count in counts.items()]
