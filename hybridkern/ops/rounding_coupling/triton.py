"""Integer-rounding coupling: kernels and launchers of the operators ``rounding_coupling_*``."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridkern._tensors import total_dtype
from hybridkern.ops._triton import math as hk
from hybridkern.ops._triton.launch import launch_tiles
from hybridkern.ops._triton.layout import (
    Output,
    columns_of,
    foldable,
    load,
    multiple,
    offsets,
    operand,
    order_of,
    part_of,
    vector_of,
)
from hybridkern.ops._triton.reduce import row_sums
from hybridkern.ops._triton.tiles import tile_of


@triton.jit
def forward_kernel(
    x, t, beta, y, rows, columns, extent, steps, chunks,
    x_batch, x_outer, x_inner, t_batch, t_outer, t_inner, y_batch, y_outer, y_inner,
    SIGN: tl.constexpr, X_DENSE: tl.constexpr, T_DENSE: tl.constexpr, Y_DENSE: tl.constexpr,
    WIDE: tl.constexpr, WORK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    row, chunk = part_of(chunks, WIDE, ROWS)
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
        column = columns_of(step, COLUMNS, WIDE)
        mask = live & (column < columns)
        y_at = offsets(column, extent, multiple(y_outer, ALIGN), y_inner, Y_DENSE)
        value = load(x, column, mask, extent, x_outer, x_inner, X_DENSE, WORK, ALIGN)
        shift = load(t, column, mask, extent, t_outer, t_inner, T_DENSE, WORK, ALIGN)
        if beta is not None:
            # a product that no later sum may absorb: every backend must round the same number
            shift = tl.fma(shift, hk.splat(factor, shift), hk.splat(0.0, shift))
        value += hk.round_even(shift) * SIGN
        tl.store(y + y_at, value.to(y.dtype.element_ty), mask=mask)


@triton.jit
def backward_kernel(
    grad, t, beta, grad_t, partial, rows, columns, extent, steps, chunks,
    g_batch, g_outer, g_inner, t_batch, t_outer, t_inner, gt_batch, gt_outer, gt_inner,
    SIGN: tl.constexpr, G_DENSE: tl.constexpr, T_DENSE: tl.constexpr, GT_DENSE: tl.constexpr,
    WIDE: tl.constexpr, WORK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    row, chunk = part_of(chunks, WIDE, ROWS)
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
        column = columns_of(step, COLUMNS, WIDE)
        mask = live & (column < columns)
        gt_at = offsets(column, extent, multiple(gt_outer, ALIGN), gt_inner, GT_DENSE)
        g = load(grad, column, mask, extent, g_outer, g_inner, G_DENSE, WORK, ALIGN)
        sums += g * load(t, column, mask, extent, t_outer, t_inner, T_DENSE, WORK, ALIGN)
        tl.store(grad_t + gt_at, (g * factor).to(grad_t.dtype.element_ty), mask=mask)
    tl.store(partial + tl.program_id(0), tl.sum(tl.sum(sums, axis=1), axis=0))


def forward(x: Tensor, t: Tensor, beta: Tensor | None, inverse: bool) -> Tensor:
    """``rounding_coupling_forward``: see ``hybridkern/ops/rounding_coupling.py``."""
    out = Output(torch.empty_like(x))
    if x.numel() == 0:
        return out.finish()
    x, t = foldable(x), foldable(t)
    order = order_of(x)
    xo, to, yo = operand(x, order), operand(t, order), operand(out.tensor, order)
    tile = tile_of(order.rows, order.columns, vector_of(x, t), False)
    sign = -1.0 if inverse else 1.0
    launch_tiles(forward_kernel, tile, order, (x, t, beta, out.tensor), {"X": xo, "T": to, "Y": yo}, SIGN=sign)
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
    partial = torch.empty((1, tile.programs), dtype=total_dtype(grad), device=t.device)
    sign = -1.0 if inverse else 1.0
    tensors = (grad, t, beta, grad_t.tensor, partial)
    launch_tiles(backward_kernel, tile, order, tensors, {"G": go, "T": to, "GT": gto}, SIGN=sign)
    row_sums(partial, None, grad_beta, sign)
    return grad_t.finish(), grad_beta


OPERATORS = {"rounding_coupling_forward": forward, "rounding_coupling_backward": backward}
