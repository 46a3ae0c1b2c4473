"""Tensors that something was read off, and whether they still say what they said then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hybridkern._finite import is_plain, readable
from hybridkern._values import unwrapped, version_of

_LARGE = 4096  # bytes, from which eight at a time are compared sooner than one number at a time
_WORD = 8


class Seen:
    """Tensors as they were when this was made: masks, permutations, bounds.

    On the CPU their values decide: writes through ``.data``, by NumPy or in inference mode give no new version, and a
    copied tensor begins to count anew. Reading values would wait for a device: there it has to be the same tensor, at
    the same place, of the same version.

    Args:
        values: the tensors.
    """

    def __init__(self, values: Sequence[Tensor]) -> None:
        self._values: tuple[Tensor | None, ...] = tuple(values)
        self._marks = tuple(map(_mark, values))
        # inside a transform of torch.func copies are wrapped, and outlive it
        self._copies = tuple(unwrapped(value.detach().clone()) if readable(value) else None for value in values)

    def holds(self, values: Sequence[Tensor]) -> bool:
        """Whether these are the same numbers."""
        return len(values) == len(self._copies) and all(map(_is_same, values, self._values, self._marks, self._copies))

    def __getstate__(self) -> dict[str, Any]:
        # a copy has tensors of its own, with other versions and places
        return self.__dict__ | {"_values": (None,) * len(self._copies)}


def _mark(value: Tensor) -> tuple[int, int]:
    return version_of(value), value.data_ptr() if is_plain(value) else 0


def _is_same(value: Tensor, held: Tensor | None, mark: tuple[int, int], copy: Tensor | None) -> bool:
    if copy is None or not readable(value):
        return value is held and _mark(value) == mark
    if value.dtype is not copy.dtype or value.shape != copy.shape:
        return False
    size = value.element_size()
    if value.numel() * size < _LARGE:
        return torch.equal(value, copy)
    words = value.is_contiguous() and copy.is_contiguous()
    words = words and not (value.numel() * size % _WORD or value.storage_offset() * size % _WORD)
    return torch.equal(*(one.detach().view(-1).view(torch.int64) for one in (value, copy)) if words else (value, copy))
