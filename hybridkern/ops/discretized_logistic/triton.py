"""Discretized logistic log-probability: kernels and launchers of the operators ``discretized_logistic_*``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridkern._tensors import total_dtype
from hybridkern.ops._triton.density import gradient_of, is_shared
from hybridkern.ops._triton.launch import launch_tiles
from hybridkern.ops._triton.layout import (
    Output,
    columns_of,
    element,
    foldable,
    load,
    multiple,
    operand,
    order_of,
    part_of,
    tile_at,
    vector_of,
)
from hybridkern.ops._triton.reduce import column_sums, row_sums
from hybridkern.ops._triton.tiles import batch_tile_of, tile_of
from hybridkern.ops.discretized_logistic.triton_math import bin_numbers, logistic_log_prob, logistic_slopes, scale_part


@triton.jit
def forward_kernel(
    x, mean, log_scale, out, rows, columns, extent, steps, chunks,
    x_batch, x_outer, x_inner, m_batch, m_outer, m_inner, s_batch, s_outer, s_inner, o_batch, o_outer, o_inner,
    REDUCE: tl.constexpr, BIN: tl.constexpr, HALF: tl.constexpr, HALF_LOW: tl.constexpr,
    X_DENSE: tl.constexpr, M_DENSE: tl.constexpr, S_DENSE: tl.constexpr, O_DENSE: tl.constexpr,
    WIDE: tl.constexpr, WORK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    row, chunk = part_of(chunks, WIDE, ROWS)
    columns = multiple(columns, ALIGN)
    extent = multiple(extent, ALIGN)
    wide_row = row.to(tl.int64)[:, None]
    x += wide_row * multiple(x_batch, ALIGN)
    mean += wide_row * multiple(m_batch, ALIGN)
    log_scale += wide_row * multiple(s_batch, ALIGN)
    live = (row < rows)[:, None]
    sums = tl.zeros([ROWS, COLUMNS], WORK)
    for step in range(chunk * steps, (chunk + 1) * steps):
        column = columns_of(step, COLUMNS, WIDE)
        mask = live & (column < columns)
        value = load(x, column, mask, extent, x_outer, x_inner, X_DENSE, WORK, ALIGN)
        location = load(mean, column, mask, extent, m_outer, m_inner, M_DENSE, WORK, ALIGN)
        log_s = load(log_scale, column, mask, extent, s_outer, s_inner, S_DENSE, WORK, ALIGN)
        log_p = logistic_log_prob(value, location, log_s, BIN, HALF, HALF_LOW)
        if REDUCE:
            sums += tl.where(mask, log_p, 0.0)
        else:
            to = out + element(wide_row, column, extent, o_batch, o_outer, o_inner, O_DENSE, ALIGN)
            tl.store(to, log_p.to(out.dtype.element_ty), mask=mask)
    if REDUCE:
        tl.store(out + row.to(tl.int64) * chunks + chunk, tl.sum(sums, axis=1), mask=row < rows)


@triton.jit
def backward_kernel(
    grad, x, mean, log_scale, grad_x, grad_mean, grad_log_scale, rows, columns, extent, steps, chunks,
    x_batch, x_outer, x_inner, m_batch, m_outer, m_inner, s_batch, s_outer, s_inner,
    gx_batch, gx_outer, gx_inner, gp_batch, gp_outer, gp_inner, g_batch, g_outer, g_inner,
    REDUCE: tl.constexpr, SHARED: tl.constexpr, BIN: tl.constexpr, HALF: tl.constexpr, HALF_LOW: tl.constexpr,
    X_DENSE: tl.constexpr, M_DENSE: tl.constexpr, S_DENSE: tl.constexpr,
    GX_DENSE: tl.constexpr, GP_DENSE: tl.constexpr, G_DENSE: tl.constexpr,
    WIDE: tl.constexpr, WORK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    # A program walks along an example; or, where the batch shares the parameters, down the batch, summing.
    program = tl.program_id(0)
    if WIDE:
        program = program.to(tl.int64)
    chunk = program % chunks
    group = program // chunks
    columns = multiple(columns, ALIGN)
    extent = multiple(extent, ALIGN)
    mean_sums = tl.zeros([ROWS, COLUMNS], WORK)
    scale_sums = tl.zeros([ROWS, COLUMNS], WORK)
    for step in range(chunk * steps, (chunk + 1) * steps):
        row, column, live, mask = tile_at(step, group, rows, columns, SHARED, WIDE, ROWS, COLUMNS)
        if REDUCE:
            upstream = tl.load(grad + row * g_batch, mask=live, other=0.0).to(WORK)
        else:
            g_at = element(row, column, extent, g_batch, g_outer, g_inner, G_DENSE, ALIGN)
            upstream = tl.load(grad + g_at, mask=mask, other=0.0).to(WORK)
        x_at = element(row, column, extent, x_batch, x_outer, x_inner, X_DENSE, ALIGN)
        m_at = element(row, column, extent, m_batch, m_outer, m_inner, M_DENSE, ALIGN)
        s_at = element(row, column, extent, s_batch, s_outer, s_inner, S_DENSE, ALIGN)
        value = tl.load(x + x_at, mask=mask, other=0.0).to(WORK)
        location = tl.load(mean + m_at, mask=mask, other=0.0).to(WORK)
        log_s = tl.load(log_scale + s_at, mask=mask, other=0.0).to(WORK)
        inverse, inverse_low, exp_h, mass, _ = scale_part(log_s, BIN)
        _, _, _, slope_x, slope_s = logistic_slopes(
            value, location, inverse, inverse_low, exp_h, mass, BIN, HALF, HALF_LOW
        )
        own_x = slope_x * upstream
        own_s = slope_s * upstream
        gx_at = element(row, column, extent, gx_batch, gx_outer, gx_inner, GX_DENSE, ALIGN)
        tl.store(grad_x + gx_at, own_x.to(grad_x.dtype.element_ty), mask=mask)
        if SHARED:
            mean_sums += tl.where(mask, -own_x, 0.0)
            scale_sums += tl.where(mask, own_s, 0.0)
        else:
            gp_at = element(row, column, extent, gp_batch, gp_outer, gp_inner, GP_DENSE, ALIGN)
            tl.store(grad_mean + gp_at, (-own_x).to(grad_mean.dtype.element_ty), mask=mask)
            tl.store(grad_log_scale + gp_at, own_s.to(grad_log_scale.dtype.element_ty), mask=mask)
    if SHARED:
        at = group * COLUMNS + tl.arange(0, COLUMNS)
        to = chunk.to(tl.int64) * columns + at
        tl.store(grad_mean + to, tl.sum(mean_sums, axis=0), mask=at < columns)
        tl.store(grad_log_scale + to, tl.sum(scale_sums, axis=0), mask=at < columns)


def forward(x: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float, reduce: bool) -> Tensor:
    """``discretized_logistic_forward``: see ``hybridkern/ops/discretized_logistic.py``."""
    dtype = total_dtype(x)
    if x.numel() == 0:
        return x.new_zeros((x.shape[0],), dtype=dtype) if reduce else torch.empty_like(x)
    out = Output(torch.empty((x.shape[0],), dtype=dtype, device=x.device) if reduce else torch.empty_like(x))
    x, mean, log_scale = foldable(x), foldable(mean), foldable(log_scale)
    order = order_of(x)
    xo, mo, so = operand(x, order), operand(mean, order), operand(log_scale, order)
    tile = tile_of(order.rows, order.columns, vector_of(x, mean, log_scale), reduce)
    target = out.tensor
    several = reduce and tile.chunks > 1
    if several:
        target = torch.empty((order.rows, tile.chunks), dtype=dtype, device=x.device)
    oo = xo if reduce else operand(target, order)
    launch_tiles(
        forward_kernel, tile, order, (x, mean, log_scale, target), {"X": xo, "M": mo, "S": so, "O": oo},
        REDUCE=reduce, **bin_numbers(float(bin_width), dtype is torch.float32),
    )  # fmt: skip
    if several:
        row_sums(target, None, out.tensor)
    return out.finish()


def backward(
    grad: Tensor, x: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float, reduce: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """``discretized_logistic_backward``: gradients in ``x``, ``mean`` and ``log_scale``."""
    grad_x = Output(torch.empty_like(x))
    grads = [value.new_empty(value.shape) for value in (mean, log_scale)]
    if x.numel() == 0:
        return grad_x.finish(), grads[0].zero_(), grads[1].zero_()
    shared = is_shared(mean, x)
    x, mean, log_scale = foldable(x), foldable(mean), foldable(log_scale)
    order = order_of(x)
    grad = grad if reduce else foldable(grad)
    go = gradient_of(grad, order, reduce)
    xo, mo, so = operand(x, order), operand(mean, order), operand(log_scale, order)
    gxo, gpo = operand(grad_x.tensor, order), operand(grads[0], order)
    tile = (batch_tile_of(order.rows, order.columns, vector_of(x)) if shared
            else tile_of(order.rows, order.columns, vector_of(x, mean, log_scale), False))  # fmt: skip
    partial = torch.empty((2, tile.chunks, order.columns), dtype=total_dtype(x), device=x.device) if shared else None
    targets: Sequence[Tensor] = grads if partial is None else partial.unbind(0)
    launch_tiles(
        backward_kernel, tile, order, (grad, x, mean, log_scale, grad_x.tensor, *targets),
        {"X": xo, "M": mo, "S": so, "GX": gxo, "GP": gpo, "G": go},
        REDUCE=reduce, SHARED=shared, **bin_numbers(float(bin_width), x.dtype is not torch.float64),
    )  # fmt: skip
    if partial is not None:
        column_sums(partial, grads, order)
    return grad_x.finish(), grads[0], grads[1]


OPERATORS = {"discretized_logistic_forward": forward, "discretized_logistic_backward": backward}
