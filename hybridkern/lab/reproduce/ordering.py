"""Whether figures follow the order that was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Ordering:
    """A figure that rises, or falls, from each model to the next.

    Attributes:
        key: of the figure.
        name: in sentences.
        rising: whether it rises.
        strict: whether standing still breaks the order.
    """

    key: str
    name: str
    rising: bool
    strict: bool = True

    def holds(self, figures: Sequence[Mapping[str, float]]) -> bool:
        """Whether it does so over these models; a NaN is in no order."""
        sign = 1 if self.rising else -1
        steps = [sign * (after - before) for before, after in pairwise(figure[self.key] for figure in figures)]
        return all(step > 0 or (step == 0 and not self.strict) for step in steps)


def sentences(
    orderings: Sequence[Ordering], figures: Sequence[Mapping[str, float]], along: str
) -> tuple[list[str], list[str]]:
    """What to say of the orders that hold, and of those that do not, as ``along`` rises."""
    held, broken = [], []
    for ordering in orderings:
        values = ", ".join(f"{figure[ordering.key]:.4g}" for figure in figures)
        verb = "rises" if ordering.rising else "falls"
        if ordering.holds(figures):
            held.append(f"As published, {ordering.name} {verb} as {along} rises: {values}.")
        else:
            broken.append(f"Unlike the published figures, {ordering.name} does not {verb[:-1]} at every step"
                          f" as {along} rises: {values}.")  # fmt: skip
    return held, broken
