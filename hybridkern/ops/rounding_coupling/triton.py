"""Integer-rounding coupling: kernels and launchers of the operators ``rounding_coupling_*``."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridkern.ops._triton import math as hk
from hybridkern.ops._triton.launch import launch
from hybridkern.ops._triton.layout import (
    Operand,
    Output,
    alignment,
    extent_of,
    foldable,
    multiple,
    needs_wide_offsets,
    offsets,
    operand,
    order_of,
    vector_of,
)
from hybridkern.ops._triton.reduce import row_sums
from hybridkern.ops._triton.tiles import tile_of


@triton.jit
def forward_kernel(
    x,
    t,
    beta,
    y,
    rows,
    columns,
    extent,
    steps,
    chunks,
    x_batch,
    x_outer,
    x_inner,
    t_batch,
    t_outer,
    t_inner,
    y_batch,
    y_outer,
    y_inner,
    SIGN: tl.constexpr,
    X_DENSE: tl.constexpr,
    T_DENSE: tl.constexpr,
    Y_DENSE: tl.constexpr,
    WIDE: tl.constexpr,
    WORK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ALIGN: tl.constexpr,
):
    program = tl.program_id(0)
    row = (program // chunks) * ROWS + tl.arange(0, ROWS)
    chunk = program % chunks
    columns = multiple(columns, ALIGN)
    extent = multiple(extent, ALIGN)
    wide_row = row.to(tl.int64)[:, None]
    x += wide_row * multiple(x_batch, ALIGN)
    t += wide_row * multiple(t_batch, ALIGN)
    y += wide_row * multiple(y_batch, ALIGN)
    live = (row < rows)[:, None]
    if beta is not None:
        factor = tl.load(beta).to(WORK)
    for step in range(chunk * steps, (chunk + 1) * steps):
        column = step * COLUMNS + tl.arange(0, COLUMNS)[None, :]
        if WIDE:
            column = (tl.full((), 0, tl.int64) + step) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
        mask = live & (column < columns)
        x_at = offsets(column, extent, multiple(x_outer, ALIGN), x_inner, X_DENSE)
        t_at = offsets(column, extent, multiple(t_outer, ALIGN), t_inner, T_DENSE)
        y_at = offsets(column, extent, multiple(y_outer, ALIGN), y_inner, Y_DENSE)
        value = tl.load(x + x_at, mask=mask, other=0.0).to(WORK)
        shift = tl.load(t + t_at, mask=mask, other=0.0).to(WORK)
        if beta is not None:
            # a product that no later sum may absorb: every backend must round the same number
            shift = tl.fma(shift, hk.splat(factor, shift), hk.splat(0.0, shift))
        value += hk.round_even(shift) * SIGN
        tl.store(y + y_at, value.to(y.dtype.element_ty), mask=mask)


@triton.jit
def backward_kernel(
    grad,
    t,
    beta,
    grad_t,
    partial,
    rows,
    columns,
    extent,
    steps,
    chunks,
    g_batch,
    g_outer,
    g_inner,
    t_batch,
    t_outer,
    t_inner,
    gt_batch,
    gt_outer,
    gt_inner,
    SIGN: tl.constexpr,
    G_DENSE: tl.constexpr,
    T_DENSE: tl.constexpr,
    GT_DENSE: tl.constexpr,
    WIDE: tl.constexpr,
    WORK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ALIGN: tl.constexpr,
):
    program = tl.program_id(0)
    row = (program // chunks) * ROWS + tl.arange(0, ROWS)
    chunk = program % chunks
    columns = multiple(columns, ALIGN)
    extent = multiple(extent, ALIGN)
    wide_row = row.to(tl.int64)[:, None]
    grad += wide_row * multiple(g_batch, ALIGN)
    t += wide_row * multiple(t_batch, ALIGN)
    grad_t += wide_row * multiple(gt_batch, ALIGN)
    live = (row < rows)[:, None]
    factor = tl.load(beta).to(WORK) * SIGN
    sums = tl.zeros([ROWS, COLUMNS], WORK)
    for step in range(chunk * steps, (chunk + 1) * steps):
        column = step * COLUMNS + tl.arange(0, COLUMNS)[None, :]
        if WIDE:
            column = (tl.full((), 0, tl.int64) + step) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
        mask = live & (column < columns)
        g_at = offsets(column, extent, multiple(g_outer, ALIGN), g_inner, G_DENSE)
        t_at = offsets(column, extent, multiple(t_outer, ALIGN), t_inner, T_DENSE)
        gt_at = offsets(column, extent, multiple(gt_outer, ALIGN), gt_inner, GT_DENSE)
        g = tl.load(grad + g_at, mask=mask, other=0.0).to(WORK)
        sums += g * tl.load(t + t_at, mask=mask, other=0.0).to(WORK)
        tl.store(grad_t + gt_at, (g * factor).to(grad_t.dtype.element_ty), mask=mask)
    tl.store(partial + program, tl.sum(tl.sum(sums, axis=1), axis=0))


def _strides(*operands: Operand) -> tuple[int, ...]:
    return tuple(stride for one in operands for stride in (one.batch, one.outer, one.inner))


def _work(x: Tensor) -> Any:
    return tl.float64 if x.dtype is torch.float64 else tl.float32


def forward(x: Tensor, t: Tensor, beta: Tensor | None, inverse: bool) -> Tensor:
    """``rounding_coupling_forward``: see ``hybridkern/ops/rounding_coupling.py``."""
    out = Output(torch.empty_like(x))
    if x.numel() == 0:
        return out.finish()
    x, t = foldable(x), foldable(t)
    order = order_of(x)
    xo, to, yo = operand(x, order), operand(t, order), operand(out.tensor, order)
    tile = tile_of(order.rows, order.columns, vector_of(x, t), False)
    launch(
        forward_kernel,
        tile.programs,
        x,
        *(x, t, beta, out.tensor),
        *(order.rows, order.columns, extent_of(order), tile.steps, tile.chunks),
        *_strides(xo, to, yo),
        SIGN=-1.0 if inverse else 1.0,
        X_DENSE=xo.dense,
        T_DENSE=to.dense,
        Y_DENSE=yo.dense,
        WIDE=needs_wide_offsets(order, [xo, to, yo]),
        WORK=_work(x),
        ROWS=tile.rows,
        COLUMNS=tile.columns,
        ALIGN=alignment(order, [xo, to, yo]),
        num_warps=tile.warps,
    )
    return out.finish()


def backward(grad: Tensor, t: Tensor, beta: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """``rounding_coupling_backward``: gradients in ``t`` and ``beta``."""
    grad_t, grad_beta = Output(torch.empty_like(t)), torch.empty_like(beta)
    if t.numel() == 0:
        return grad_t.finish(), grad_beta.zero_()
    grad, t = foldable(grad), foldable(t)
    order = order_of(t)
    go, to, gto = operand(grad, order), operand(t, order), operand(grad_t.tensor, order)
    tile = tile_of(order.rows, order.columns, vector_of(grad, t), True)
    work = torch.float64 if grad.dtype is torch.float64 else torch.float32
    partial = torch.empty((1, tile.programs), dtype=work, device=t.device)
    sign = -1.0 if inverse else 1.0
    launch(
        backward_kernel,
        tile.programs,
        t,
        *(grad, t, beta, grad_t.tensor, partial),
        *(order.rows, order.columns, extent_of(order), tile.steps, tile.chunks),
        *_strides(go, to, gto),
        SIGN=sign,
        G_DENSE=go.dense,
        T_DENSE=to.dense,
        GT_DENSE=gto.dense,
        WIDE=needs_wide_offsets(order, [go, to, gto]),
        WORK=_work(grad),
        ROWS=tile.rows,
        COLUMNS=tile.columns,
        ALIGN=alignment(order, [go, to, gto]),
        num_warps=tile.warps,
    )
    row_sums(partial, None, grad_beta, sign)
    return grad_t.finish(), grad_beta


OPERATORS = {"rounding_coupling_forward": forward, "rounding_coupling_backward": backward}
