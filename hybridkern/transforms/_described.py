"""Layers whose ``state_dict`` says of which element they are."""

from __future__ import annotations

from hybridkern._described import Described
from hybridkern.transforms.elements import Element


class OfElement(Described):
    """A layer that maps numbers by an element; one of the user's own need not say what it computes."""

    element: Element

    def numbers(self) -> tuple[float, ...]:
        """The choices of the layer and of its element; empty where that has no method ``numbers``."""
        own = getattr(self.element, "numbers", None)
        return () if own is None else (*self._choices(), *map(float, own()))

    def described(self) -> str:
        """The element."""
        return str(self.element)

    def _choices(self) -> tuple[float, ...]:
        raise NotImplementedError
