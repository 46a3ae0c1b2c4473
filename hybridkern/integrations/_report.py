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
    """What was replaced and what was left, with reasons; ``print`` shows it grouped by class.

    Attributes:
        replaced: layers that hybridkern computes now.
        left: modules of the libraries that stay what they were.
        networks: coupling networks of the replaced layers, and how they are called.
    """

    replaced: tuple[Entry, ...]
    left: tuple[Entry, ...]
    networks: tuple[Entry, ...]

    def __str__(self) -> str:
        lines = [f"{len(self.replaced)} layers replaced, {len(self.left)} modules left"]
        for title, entries in (("replaced", self.replaced), ("networks", self.networks), ("left", self.left)):
            lines += [f"  {title}: {line}" for line in _grouped(entries)]
        return "\n".join(lines)


def _grouped(entries: Iterable[Entry]) -> list[str]:
    counts = Counter((entry.kind, entry.reason) for entry in entries)
    return [f"{count} x {kind}: {reason}" for (kind, reason), count in counts.items()]
