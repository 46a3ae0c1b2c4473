"""Tensors that something was read off, and whether they still say what they said then."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hybridkern._finite import is_plain, readable
from hybridkern._values import unwrapped, version_of

_LARGE = 512  # bytes, from which eight at a time are compared sooner than one number at a time
_WORD = 8
_MOST = 1 << 17  # bytes, up to which memory is compared sooner as a whole than by an operator


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
        self._pairs: tuple[Any, ...] = tuple(map(_pair, values, self._copies))

    def holds(self, values: Sequence[Tensor]) -> bool:
        """Whether these are the same numbers."""
        if len(values) != len(self._copies):
            return False
        for i, (value, pair) in enumerate(zip(values, self._pairs, strict=True)):
            # the same tensor as it lay then: its numbers are those at that place
            if (
                pair is not None
                and value is pair[0]
                and value.data_ptr() == pair[3]
                and value.dtype is pair[4]
                and value.shape == pair[5]
                and value.stride() == pair[6]
            ):
                if pair[1]() != pair[2]:
                    return False
            elif not _is_same(value, self._values[i], self._marks[i], self._copies[i]):
                return False
        return True

    def __getstate__(self) -> dict[str, Any]:
        # a copy has tensors of its own, with other versions and places
        nothing = (None,) * len(self._copies)
        return self.__dict__ | {"_values": nothing, "_pairs": nothing}


def _pair(value: Tensor, copy: Tensor | None) -> tuple[Any, ...] | None:
    """A tensor, what is asked of it and its answer now, how it lies, and what keeps its memory."""
    if copy is None or not value.numel():
        return None
    size = value.numel() * value.element_size()
    if value.is_contiguous() and size <= _MOST:
        # Up to 1 KB a tenth of the time of torch.equal. NumPy's view would do so too, but fixes the storage's size.
        read = memoryview((ctypes.c_char * size).from_address(value.data_ptr())).tobytes
        asked: tuple[Any, Any] = (read, read())
    else:
        asked = (partial(torch.equal, *_words(value, copy)), True)
    return value, *asked, value.data_ptr(), value.dtype, value.shape, value.stride(), value.detach()


def _words(value: Tensor, copy: Tensor) -> tuple[Tensor, Tensor]:
    """Both as words of eight bytes, where they are large and lie so."""
    size = value.element_size()
    large = value.numel() * size >= _LARGE and value.is_contiguous() and copy.is_contiguous()
    if not large or value.numel() * size % _WORD or value.storage_offset() * size % _WORD:
        return value.detach(), copy
    first, second = (one.detach().view(-1).view(torch.int64) for one in (value, copy))
    return first, second


def _mark(value: Tensor) -> tuple[int, int]:
    return version_of(value), value.data_ptr() if is_plain(value) else 0


def _is_same(value: Tensor, held: Tensor | None, mark: tuple[int, int], copy: Tensor | None) -> bool:
    if copy is None or not readable(value):
        return value is held and _mark(value) == mark
    if value.dtype is not copy.dtype or value.shape != copy.shape:
        return False
    return torch.equal(*_words(value, copy))
