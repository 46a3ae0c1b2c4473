"""Second stages: sums of the programs' partial sums, in a fixed order."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from hybridkern.ops._triton.launch import launch
from hybridkern.ops._triton.layout import Order, extent_of, offsets, operand
from hybridkern.ops._triton.tiles import power_of_two

_COLUMNS = 128


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
def column_sums_kernel(
    partial,
    out,
    columns,
    chunks,
    extent,
    outer,
    inner,
    SIGN: tl.constexpr,
    DENSE: tl.constexpr,
    CHUNKS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([CHUNKS, COLUMNS], partial.dtype.element_ty)
    for first in range(0, chunks, CHUNKS):
        chunk = first + tl.arange(0, CHUNKS)
        mask = (chunk < chunks)[:, None] & (column < columns)[None, :]
        total += tl.load(partial + chunk.to(tl.int64)[:, None] * columns + column[None, :], mask=mask, other=0.0)
    value = tl.sum(total, axis=0) * SIGN
    to = out + offsets(column.to(tl.int64), extent, outer, inner, DENSE)
    tl.store(to, value.to(out.dtype.element_ty), mask=column < columns)


@triton.jit
def split_sums_kernel(partial, first, second, columns, split, chunks, CHUNKS: tl.constexpr, COLUMNS: tl.constexpr):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([CHUNKS, COLUMNS], partial.dtype.element_ty)
    for start in range(0, chunks, CHUNKS):
        chunk = start + tl.arange(0, CHUNKS)
        mask = (chunk < chunks)[:, None] & (column < columns)[None, :]
        total += tl.load(partial + chunk.to(tl.int64)[:, None] * columns + column[None, :], mask=mask, other=0.0)
    value = tl.sum(total, axis=0)
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


def column_sums(partial: Tensor, out: Tensor, order: Order, channel_dim: int = 1, sign: float = 1.0) -> None:
    """``out = sign * partial.sum(0)``; ``out (1, ...)`` has the elements of one example in that order."""
    chunks = partial.shape[0]
    columns = order.columns
    to = operand(out, order, channel_dim)
    wide = min(_COLUMNS, power_of_two(columns))
    high = min(512 // wide, power_of_two(chunks))
    launch(
        column_sums_kernel,
        -(-columns // wide),
        out,
        *(partial, out, columns, chunks, extent_of(order), to.outer, to.inner),
        SIGN=sign,
        DENSE=to.dense,
        CHUNKS=high,
        COLUMNS=wide,
        num_warps=4,
    )


def split_sums(partial: Tensor, first: Tensor, second: Tensor) -> None:
    """``partial.sum(0)``, its first columns into ``first`` and the rest into ``second``, both contiguous."""
    chunks, columns = partial.shape
    wide = min(_COLUMNS, power_of_two(columns))
    high = min(512 // wide, power_of_two(chunks))
    args: tuple[Any, ...] = (partial, first, second, columns, first.numel(), chunks)
    launch(split_sums_kernel, -(-columns // wide), partial, *args, CHUNKS=high, COLUMNS=wide, num_warps=4)
