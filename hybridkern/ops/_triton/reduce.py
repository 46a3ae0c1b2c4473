"""Second stages: sums of the programs' partial sums, in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from hybridkern.ops._triton.launch import launch
from hybridkern.ops._triton.layout import FAR, Order, extent_of, offsets, operand
from hybridkern.ops._triton.tiles import power_of_two

_COLUMNS, _CHUNKS = 32, 64  # a line of 128 bytes by rows enough that few loads follow each other; many programs


@triton.jit
def row_sums_kernel(
    partial, start, out, rows, chunks, start_stride, SIGN: tl.constexpr, ROWS: tl.constexpr, CHUNKS: tl.constexpr
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros([ROWS, CHUNKS], partial.dtype.element_ty)
    for first in range(0, chunks, CHUNKS):
        chunk = first + tl.arange(0, CHUNKS)
        mask = (row < rows)[:, None] & (chunk < chunks)[None, :]
        total += tl.load(partial + row.to(tl.int64)[:, None] * chunks + chunk[None, :], mask=mask, other=0.0)
    value = (tl.sum(total, axis=1) * SIGN).to(out.dtype.element_ty)
    if start is not None:
        value += tl.load(start + row.to(tl.int64) * start_stride, mask=row < rows).to(out.dtype.element_ty)
    tl.store(out + row, value, mask=row < rows)


@triton.jit
def _sums(partial, column, columns, chunks, CHUNKS: tl.constexpr, COLUMNS: tl.constexpr):
    """Sums ``(COLUMNS,)`` over the rows of ``partial (chunks, columns)``."""
    total = tl.zeros([CHUNKS, COLUMNS], partial.dtype.element_ty)
    for first in range(0, chunks, CHUNKS):
        chunk = first + tl.arange(0, CHUNKS)
        mask = (chunk < chunks)[:, None] & (column < columns)[None, :]
        total += tl.load(partial + chunk.to(tl.int64)[:, None] * columns + column[None, :], mask=mask, other=0.0)
    return tl.sum(total, axis=0)


@triton.jit
def column_sums_kernel(
    partial, first, second, third, columns, chunks, blocks, extent, outer, inner,
    DENSE: tl.constexpr, WIDE: tl.constexpr, CHUNKS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Up to three sums, over matrices that follow each other in ``partial``."""
    program = tl.program_id(0)
    if WIDE:
        program = program.to(tl.int64)
    which = program // blocks
    column = (program - which * blocks) * COLUMNS + tl.arange(0, COLUMNS)
    value = _sums(partial + which.to(tl.int64) * chunks * columns, column, columns, chunks, CHUNKS, COLUMNS)
    at = offsets(column.to(tl.int64), extent, outer, inner, DENSE)
    tl.store(first + at, value.to(first.dtype.element_ty), mask=column < tl.where(which == 0, columns, 0))
    if second is not None:
        tl.store(second + at, value.to(second.dtype.element_ty), mask=column < tl.where(which == 1, columns, 0))
    if third is not None:
        tl.store(third + at, value.to(third.dtype.element_ty), mask=column < tl.where(which == 2, columns, 0))


@triton.jit
def split_sums_kernel(
    partial, first, second, columns, split, chunks, WIDE: tl.constexpr, CHUNKS: tl.constexpr, COLUMNS: tl.constexpr
):
    program = tl.program_id(0)
    if WIDE:
        program = program.to(tl.int64)
    column = program * COLUMNS + tl.arange(0, COLUMNS)
    value = _sums(partial, column, columns, chunks, CHUNKS, COLUMNS)
    tl.store(first + column, value.to(first.dtype.element_ty), mask=column < split)
    tl.store(second + (column - split), value.to(second.dtype.element_ty), mask=(column >= split) & (column < columns))


def row_sums(partial: Tensor, start: Tensor | None, out: Tensor, sign: float = 1.0) -> None:
    """``out = start + sign * partial.sum(1)``."""
    rows, chunks = partial.shape
    wide = min(128, power_of_two(chunks))
    high = 512 // wide
    stride = 0 if start is None else start.stride(0)
    args: tuple[Any, ...] = (partial, start, out, rows, chunks, stride)
    launch(row_sums_kernel, -(-rows // high), out, *args, SIGN=sign, ROWS=high, CHUNKS=wide, num_warps=4)


def _tile(columns: int, chunks: int) -> tuple[int, int]:
    return min(_COLUMNS, power_of_two(columns)), min(_CHUNKS, power_of_two(chunks))


def column_sums(partial: Tensor, outs: Sequence[Tensor], order: Order, channel_dim: int = 1) -> None:
    """``outs[i] = partial[i].sum(0)``, up to three in one launch.

    ``partial (len(outs), chunks, columns)`` is contiguous; the ``outs (1, ...)`` have the elements of one example in
    that order, and lie alike.
    """
    _, chunks, columns = partial.shape
    to = operand(outs[0], order, channel_dim)
    wide, high = _tile(columns, chunks)
    blocks = -(-columns // wide)
    second, third = (*outs[1:], None, None)[:2]
    launch(
        column_sums_kernel,
        blocks * len(outs),
        outs[0],
        *(partial, outs[0], second, third, columns, chunks, blocks, extent_of(order), to.outer, to.inner),
        DENSE=to.dense,
        WIDE=bool(columns >= FAR),
        CHUNKS=high,
        COLUMNS=wide,
        num_warps=4,
    )


def split_sums(partial: Tensor, first: Tensor, second: Tensor) -> None:
    """``partial.sum(0)``, its first columns into ``first`` and the rest into ``second``, both contiguous."""
    chunks, columns = partial.shape
    wide, high = _tile(columns, chunks)
    args: tuple[Any, ...] = (partial, first, second, columns, first.numel(), chunks)
    launch(
        split_sums_kernel,
        -(-columns // wide),
        partial,
        *args,
        WIDE=bool(columns >= FAR),
        CHUNKS=high,
        COLUMNS=wide,
        num_warps=4,
    )
