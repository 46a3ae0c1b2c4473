"""Tensors as the kernels see them: examples of numbered elements, with strides.

A tensor ``(B, C, *S)`` is ``(B, C, P)`` with ``P`` the folded spatial dims. The elements of an example are numbered in
the order in which the main operand lies: channel by channel, or pixel by pixel for channels_last. Element ``i`` is
``(outer, inner) = divmod(i, extent)``; an operand that lies in that order without gaps needs no division (``dense``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridkern.ops._triton.tiles import Tile


@triton.jit
def offsets(column, extent, outer_stride, inner_stride, DENSE: tl.constexpr):
    """Offsets of elements ``column`` within an example."""
    if DENSE:
        return column
    else:
        outer = column // extent
        return outer * outer_stride + (column - outer * extent) * inner_stride


@triton.jit
def multiple(value, ALIGN: tl.constexpr):
    """``value``, of which the compiler then knows that it is a multiple of ``ALIGN``: wide accesses hang on that."""
    return (value // ALIGN) * ALIGN


@triton.jit
def part_of(chunks, WIDE: tl.constexpr, ROWS: tl.constexpr):
    """Numbers ``(ROWS,)`` of this program's examples, and which of the ``chunks`` of each it works on."""
    program = tl.program_id(0)
    if WIDE:
        program = program.to(tl.int64)
    return (program // chunks) * ROWS + tl.arange(0, ROWS), program % chunks


@triton.jit
def columns_of(step, COLUMNS: tl.constexpr, WIDE: tl.constexpr):
    """Numbers ``(1, COLUMNS)`` of a step's elements within an example."""
    if WIDE:
        step = tl.full((), 0, tl.int64) + step
    return step * COLUMNS + tl.arange(0, COLUMNS)[None, :]


@triton.jit
def tile_at(
    step, group, rows, columns, SHARED: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Rows and columns of a step along an example, or down the batch where it is ``SHARED``; which are live, are in."""
    if SHARED:
        row_tile = step
        column_tile = group
    else:
        row_tile = group
        column_tile = step
    if WIDE:
        row_tile = tl.full((), 0, tl.int64) + row_tile
        column_tile = tl.full((), 0, tl.int64) + column_tile
    row = row_tile * ROWS + tl.arange(0, ROWS)[:, None]
    column = column_tile * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    live = row < rows
    return row.to(tl.int64), column, live, live & (column < columns)


@triton.jit
def element(row, column, extent, batch, outer, inner, DENSE: tl.constexpr, ALIGN: tl.constexpr):
    """Offsets of elements of examples ``row``, int64."""
    return row * multiple(batch, ALIGN) + offsets(column, extent, multiple(outer, ALIGN), inner, DENSE)


@triton.jit
def load(example, column, mask, extent, outer, inner, DENSE: tl.constexpr, WORK: tl.constexpr, ALIGN: tl.constexpr):
    """Elements ``column`` of what lies at the pointers ``example``, in the working type; 0 outside of ``mask``."""
    at = offsets(column, extent, multiple(outer, ALIGN), inner, DENSE)
    return tl.load(example + at, mask=mask, other=0.0).to(WORK)


class Order(NamedTuple):
    """How the elements of an example are numbered."""

    rows: int
    channels: int
    pixels: int
    pixel_major: bool

    @property
    def columns(self) -> int:
        """Elements of an example."""
        return self.channels * self.pixels

    @property
    def extent(self) -> int:
        """Elements of the inner run."""
        return self.channels if self.pixel_major else self.pixels


class Operand(NamedTuple):
    """A tensor and its strides in elements: between examples, outer and inner runs; 0 where it is broadcast.

    ``component`` is the stride of a dimension between examples and channels; ``None``: there is none. One that is
    ``per_example`` holds a number per example, at its batch stride.
    """

    tensor: Tensor
    batch: int
    outer: int
    inner: int
    dense: bool
    component: int | None = None
    per_example: bool = False

    @property
    def strides(self) -> tuple[int, ...]:
        """Of examples, components if there are any, outer and inner runs."""
        components = () if self.component is None else (self.component,)
        return self.batch, *components, self.outer, self.inner


def folds(value: Tensor, first: int = 2) -> bool:
    """Whether the dims from ``first`` on have one common stride."""
    sizes, strides = value.shape[first:], value.stride()[first:]
    last = None
    for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if size == 1:
            continue
        if last is not None and stride != last[0] * last[1]:
            return False
        last = (size, stride)
    return True


def foldable(value: Tensor, first: int = 2) -> Tensor:
    """``value`` itself if its spatial dims fold, else a contiguous copy."""
    return value if folds(value, first) else value.contiguous()


def _pixel_stride(value: Tensor, first: int) -> int:
    for size, stride in zip(reversed(value.shape[first:]), reversed(value.stride()[first:]), strict=True):
        if size != 1:
            return stride
    return 1


def order_of(value: Tensor) -> Order:
    """The order in which ``value (B, C, *S)`` lies; its spatial dims must fold."""
    channels = value.shape[1] if value.ndim > 1 else 1
    pixels = math.prod(value.shape[2:])
    pixel_major = False
    if channels > 1 and pixels > 1:
        pixel_major = value.stride(1) < _pixel_stride(value, 2)
    return Order(value.shape[0], channels, pixels, pixel_major)


def operand(value: Tensor, order: Order, channel_dim: int = 1, step: int = 1) -> Operand:
    """``value`` in that order, every ``step``-th channel of it; a batch of one gets stride 0."""
    batch = value.stride(0) if value.shape[0] != 1 else 0
    channel = value.stride(channel_dim) * step if value.ndim > channel_dim else 0
    pixel = _pixel_stride(value, channel_dim + 1) if order.pixels > 1 else 0
    component = value.stride(1) if channel_dim == 2 else None
    if order.channels == 1:
        outer, inner = 0, pixel
    elif order.pixels == 1:
        outer, inner = 0, channel
    elif order.pixel_major:
        outer, inner = pixel, channel
    else:
        outer, inner = channel, pixel
    # one run has no outer stride worth asking for; only its inner one counts
    single = order.channels == 1 or order.pixels == 1
    dense = inner == 1 and (single or outer == order.extent)
    return Operand(value, batch, outer, inner, dense, component)


def extent_of(order: Order) -> int:
    """Inner extent for the kernels: all elements where there is one run only."""
    return order.columns if order.channels == 1 or order.pixels == 1 else order.extent


def alignment(order: Order, operands: list[Operand], *starts: int) -> int:
    """Largest power of two, at most 16, that divides every extent, stride and start but the innermost strides.

    The kernels round all of these down to a multiple of it, which tells the compiler what it may access at once.
    """
    values = [16, order.columns, extent_of(order), *starts]
    for one in operands:
        if not one.per_example:
            values += [one.batch, one.component or 0] + ([] if one.dense else [one.outer])
    return math.gcd(*(int(value) for value in values))


def vector_of(*tensors: Tensor | None) -> int:
    """Elements in 16 bytes of the widest of these tensors."""
    return 16 // max(value.element_size() for value in tensors if value is not None)


FAR = 2**31 - 2**16  # offsets from there on are formed in 64 bits


def needs_wide(
    order: Order, tile: Tile, operands: list[Operand], starts: Sequence[int] = (), *, shared: bool = False
) -> bool:
    """Whether an offset within an example, or the number of an example or element, may pass 2^31.

    Tiles reach beyond the last example and element: what lies there is masked, but its number must not come back
    negative, which no mask would tell from one that is there. ``starts`` are added to offsets of operands; a tile that
    is ``shared`` walks down the batch.
    """
    across, along = (tile.columns, tile.rows) if shared else (tile.rows, tile.columns)
    walked = max(tile.programs // tile.chunks * across, tile.chunks * tile.steps * along)
    return bool(max(walked, *(_span(one, order) + max(starts, default=0) for one in operands)) >= FAR)


def _span(one: Operand, order: Order) -> int:
    extent = extent_of(order)
    return max(1, order.columns // max(1, extent)) * one.outer + extent * one.inner + (one.component or 0) * 2


class Output:
    """An output whose spatial dims may not fold: then a contiguous stand-in is written and copied over at the end."""

    def __init__(self, target: Tensor) -> None:
        self.target = target
        self.tensor = target if folds(target) else torch.empty_like(target, memory_format=torch.contiguous_format)

    def finish(self) -> Tensor:
        """The tensor to return."""
        if self.tensor is not self.target:
            self.target.copy_(self.tensor)
        return self.target
