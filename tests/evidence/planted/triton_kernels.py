"""``y = x*exp(s) + t`` with the sum of ``s`` a row, as Triton kernels: a correct one, and one for every fault."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _tile(n_rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    offset = row[:, None].to(tl.int64) * WIDTH + column[None, :]
    return row, offset, (row[:, None] < n_rows) & (column[None, :] < WIDTH)


@triton.jit
def correct(x_ptr, s_ptr, t_ptr, y_ptr, sum_ptr, n_rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row, offset, mask = _tile(n_rows, WIDTH, ROWS, BLOCK)
    x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    s = tl.load(s_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    t = tl.load(t_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    tl.store(y_ptr + offset, (x * tl.exp(s) + t).to(y_ptr.dtype.element_ty), mask=mask)
    tl.store(sum_ptr + row, tl.sum(tl.where(mask, s, 0.0), axis=1), mask=row < n_rows)


@triton.jit
def reads_twice(
    x_ptr, s_ptr, t_ptr, y_ptr, sum_ptr, n_rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    row, offset, mask = _tile(n_rows, WIDTH, ROWS, BLOCK)
    x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    s = tl.load(s_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    t = tl.load(t_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    tl.store(y_ptr + offset, (x * tl.exp(s) + t).to(y_ptr.dtype.element_ty), mask=mask)
    again = tl.load(s_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    tl.store(sum_ptr + row, tl.sum(again, axis=1), mask=row < n_rows)


@triton.jit
def out_of_bounds(
    x_ptr, s_ptr, t_ptr, y_ptr, sum_ptr, n_rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    row, offset, mask = _tile(n_rows, WIDTH, ROWS, BLOCK)
    x = tl.load(x_ptr + offset, mask=(row < n_rows)[:, None], other=0.0).to(tl.float32)  # no mask on the columns
    s = tl.load(s_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    t = tl.load(t_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    tl.store(y_ptr + offset, (x * tl.exp(s) + t).to(y_ptr.dtype.element_ty), mask=mask)
    tl.store(sum_ptr + row, tl.sum(tl.where(mask, s, 0.0), axis=1), mask=row < n_rows)


@triton.jit
def races(x_ptr, s_ptr, t_ptr, y_ptr, sum_ptr, n_rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row, offset, mask = _tile(n_rows, WIDTH, ROWS, BLOCK)
    x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    s = tl.load(s_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    t = tl.load(t_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    tl.store(y_ptr + offset, (x * tl.exp(s) + t).to(y_ptr.dtype.element_ty), mask=mask)
    total = tl.load(sum_ptr + row, mask=row < n_rows, other=0.0)  # programs along the columns share this sum
    tl.store(sum_ptr + row, total + tl.sum(tl.where(mask, s, 0.0), axis=1), mask=row < n_rows)


@triton.jit
def adds_to_nothing(
    x_ptr, s_ptr, t_ptr, y_ptr, sum_ptr, n_rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    row, offset, mask = _tile(n_rows, WIDTH, ROWS, BLOCK)
    x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    t = tl.load(t_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + offset, mask=mask, other=0.0).to(tl.float32)  # nobody wrote it
    tl.store(y_ptr + offset, (x + t + 0.0 * y).to(y_ptr.dtype.element_ty), mask=mask)
    tl.store(sum_ptr + row, tl.sum(t, axis=1), mask=row < n_rows)


@triton.jit
def depends_on_order(
    x_ptr, s_ptr, t_ptr, y_ptr, sum_ptr, n_rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    row, offset, mask = _tile(n_rows, WIDTH, ROWS, BLOCK)
    s = tl.load(s_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    tl.store(sum_ptr + row, tl.sum(s, axis=1), mask=row < n_rows)
    before = tl.load(sum_ptr + row - ROWS, mask=(row >= ROWS) & (row < n_rows), other=0.0)  # the previous program's
    tl.store(y_ptr + offset, (s + before[:, None]).to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def loads_its_own_store(
    x_ptr, s_ptr, t_ptr, y_ptr, sum_ptr, n_rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    row, offset, mask = _tile(n_rows, WIDTH, ROWS, BLOCK)
    tl.store(y_ptr + offset, tl.load(x_ptr + offset, mask=mask, other=0.0), mask=mask)
    y = tl.load(y_ptr + offset, mask=mask, other=0.0).to(tl.float32)  # another thread may have stored it
    tl.store(sum_ptr + row, tl.sum(y, axis=1), mask=row < n_rows)


@triton.jit
def loads_its_own_store_after_a_barrier(
    x_ptr, s_ptr, t_ptr, y_ptr, sum_ptr, n_rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    row, offset, mask = _tile(n_rows, WIDTH, ROWS, BLOCK)
    tl.store(y_ptr + offset, tl.load(x_ptr + offset, mask=mask, other=0.0), mask=mask)
    tl.debug_barrier()
    y = tl.load(y_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    tl.store(sum_ptr + row, tl.sum(y, axis=1), mask=row < n_rows)


@triton.jit
def spills(x_ptr, y_ptr, N: tl.constexpr, BLOCK: tl.constexpr):
    """Holds far more than fits in registers: a cumulative use of everything loaded."""
    index = tl.arange(0, BLOCK)
    total = tl.load(x_ptr + index)
    for i in tl.static_range(1, N):
        value = tl.load(x_ptr + i * BLOCK + index)
        total += value * value
    for i in tl.static_range(N):
        value = tl.load(x_ptr + i * BLOCK + index)
        tl.store(y_ptr + i * BLOCK + index, value * total)


def launch(kernel, x: Tensor, s: Tensor, t: Tensor, rows: int = 4, columns: int = 1) -> tuple[Tensor, Tensor]:
    """``y`` and the sums of ``s``, by any of the kernels with that signature, ``columns`` programs to a row."""
    y = torch.empty_like(x)
    total = torch.empty(x.shape[0])
    block = max(16, triton.next_power_of_2(x.shape[1]) // columns)
    grid = (triton.cdiv(x.shape[0], rows), columns)
    kernel[grid](x, s, t, y, total, x.shape[0], WIDTH=x.shape[1], ROWS=rows, BLOCK=block, num_warps=4)
    return y, total
