"""Coupling layer on whole vectors: one part of the numbers is mapped by parameters computed from the others."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hybridkern._arguments import as_flag, as_size, short
from hybridkern._saved.built import Built
from hybridkern.transforms._described import OfElement
from hybridkern.transforms.elements import Element


def joined(kept: Tensor, seen: Tensor | None) -> Tensor:
    """What a coupling network sees: vectors or images ``(B, C, *S)`` and the context ``(B, c)``, in dim 1."""
    if seen is None:
        return kept
    seen = seen.to(kept.dtype)
    if kept.ndim > 2:
        seen = seen[(..., *(None,) * (kept.ndim - 2))].expand(-1, -1, *kept.shape[2:])
    return torch.cat([kept, seen], 1)


class Coupling(Built, OfElement):
    """Maps the second half of a vector, or the first, by parameters that a network computes from the other.

    The ``state_dict`` says of which element and part it is, and that of another is refused.

    Args:
        net: maps the half that is kept, joined with the context, ``(B, kept + context)`` to
            ``(B, changed * element.outputs)``, those of a number together.
        element: the map of one number.
        changed: how many numbers change.
        first: those are the first of the vector, and not the last.

    Raises:
        TypeError, ValueError: an argument of another type or range.

    Source: Dinh et al. 2017 (arXiv:1605.08803), equations 7 and 8.
    """

    def __init__(self, net: nn.Module, element: Element, changed: int, *, first: bool = False) -> None:
        super().__init__()
        if not isinstance(net, nn.Module):
            raise TypeError(f"net: got {short(net)}, expected an nn.Module")
        self.net, self.element = net, element
        self.changed, self.first = as_size("changed", changed), as_flag("first", first)

    def _choices(self) -> tuple[float, ...]:
        return float(self.changed), float(self.first)

    def forward(
        self, x: Tensor, log_det: Tensor | None = None, *, context: Tensor | None = None, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Data -> latent, or back; arguments and results as those of
        :meth:`hybridkern.transforms.Autoregressive.forward`.
        """
        place = self.changed if self.first else x.shape[1] - self.changed
        left, right = x[:, :place], x[:, place:]
        value, kept = (left, right) if self.first else (right, left)
        y, log_det = self.element(value, self.net(joined(kept, context)), log_det, inverse=inverse)
        return torch.cat([y, kept] if self.first else [kept, y], 1), log_det
