"""Diagonal Gaussian log-probability: kernels and launchers of the operators ``gaussian_log_prob_*``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridkern._tensors import total_dtype
from hybridkern.ops._triton import math as hk
from hybridkern.ops._triton.density import is_shared
from hybridkern.ops._triton.launch import launch_tiles
from hybridkern.ops._triton.layout import (
    Operand,
    Order,
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

# of every dimension; Triton passes a number of Python as float32, so it is one of the compiled constants
_CONSTANT = -0.5 * math.log(2 * math.pi)


@triton.jit
def _terms(x, mean, log_scale):
    # the halves keep x - mean from overflowing, the bound keeps 0 * infinity away
    if x.dtype == tl.float64:
        bound = 708.0
    else:
        bound = 87.0
    inverse = hk.exponential(hk.at_most(-log_scale, bound))
    z = (x * 0.5 - mean * 0.5) * (inverse * 2.0)
    return z * z * -0.5 - log_scale, -z * inverse, z * z - 1.0


@triton.jit
def forward_kernel(
    x, mean, log_scale, out, rows, columns, extent, steps, chunks,
    x_batch, x_outer, x_inner, m_batch, m_outer, m_inner, s_batch, s_outer, s_inner,
    CONSTANT: tl.constexpr, X_DENSE: tl.constexpr, M_DENSE: tl.constexpr, S_DENSE: tl.constexpr,
    WIDE: tl.constexpr, WORK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    row, chunk = part_of(chunks, WIDE, ROWS)
    columns = multiple(columns, ALIGN)
    extent = multiple(extent, ALIGN)
    wide_row = row.to(tl.int64)[:, None]
    x += wide_row * multiple(x_batch, ALIGN)
    if mean is not None:
        mean += wide_row * multiple(m_batch, ALIGN)
    if log_scale is not None:
        log_scale += wide_row * multiple(s_batch, ALIGN)
    live = (row < rows)[:, None]
    sums = tl.zeros([ROWS, COLUMNS], WORK)
    for step in range(chunk * steps, (chunk + 1) * steps):
        column = columns_of(step, COLUMNS, WIDE)
        mask = live & (column < columns)
        value = load(x, column, mask, extent, x_outer, x_inner, X_DENSE, WORK, ALIGN)
        location = tl.zeros_like(value)
        log_s = tl.zeros_like(value)
        if mean is not None:
            location = load(mean, column, mask, extent, m_outer, m_inner, M_DENSE, WORK, ALIGN)
        if log_scale is not None:
            log_s = load(log_scale, column, mask, extent, s_outer, s_inner, S_DENSE, WORK, ALIGN)
        log_p, _, _ = _terms(value, location, log_s)
        sums += tl.where(mask, log_p, 0.0)
    own = tl.sum(sums, axis=1)
    if chunk == 0:
        own += columns.to(WORK) * CONSTANT
    tl.store(out + row.to(tl.int64) * chunks + chunk, own, mask=row < rows)


@triton.jit
def backward_kernel(
    grad, x, mean, log_scale, grad_x, grad_mean, grad_log_scale, rows, columns, extent, steps, chunks,
    x_batch, x_outer, x_inner, m_batch, m_outer, m_inner, s_batch, s_outer, s_inner,
    gx_batch, gx_outer, gx_inner, gp_batch, gp_outer, gp_inner, grad_stride, SHARED: tl.constexpr,
    X_DENSE: tl.constexpr, M_DENSE: tl.constexpr, S_DENSE: tl.constexpr, GX_DENSE: tl.constexpr, GP_DENSE: tl.constexpr,
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
        upstream = tl.load(grad + row * grad_stride, mask=live, other=0.0).to(WORK)
        x_at = element(row, column, extent, x_batch, x_outer, x_inner, X_DENSE, ALIGN)
        value = tl.load(x + x_at, mask=mask, other=0.0).to(WORK)
        location = tl.zeros_like(value)
        log_s = tl.zeros_like(value)
        if mean is not None:
            m_at = element(row, column, extent, m_batch, m_outer, m_inner, M_DENSE, ALIGN)
            location = tl.load(mean + m_at, mask=mask, other=0.0).to(WORK)
        if log_scale is not None:
            s_at = element(row, column, extent, s_batch, s_outer, s_inner, S_DENSE, ALIGN)
            log_s = tl.load(log_scale + s_at, mask=mask, other=0.0).to(WORK)
        _, slope_x, slope_s = _terms(value, location, log_s)
        own_x = slope_x * upstream
        own_s = slope_s * upstream
        gx_at = element(row, column, extent, gx_batch, gx_outer, gx_inner, GX_DENSE, ALIGN)
        tl.store(grad_x + gx_at, own_x.to(grad_x.dtype.element_ty), mask=mask)
        if SHARED:
            mean_sums += tl.where(mask, -own_x, 0.0)
            scale_sums += tl.where(mask, own_s, 0.0)
        else:
            gp_at = element(row, column, extent, gp_batch, gp_outer, gp_inner, GP_DENSE, ALIGN)
            if mean is not None:
                tl.store(grad_mean + gp_at, (-own_x).to(grad_mean.dtype.element_ty), mask=mask)
            if log_scale is not None:
                tl.store(grad_log_scale + gp_at, own_s.to(grad_log_scale.dtype.element_ty), mask=mask)
    if SHARED:
        at = group * COLUMNS + tl.arange(0, COLUMNS)
        to = chunk.to(tl.int64) * columns + at
        if mean is not None:
            tl.store(grad_mean + to, tl.sum(mean_sums, axis=0), mask=at < columns)
        if log_scale is not None:
            tl.store(grad_log_scale + to, tl.sum(scale_sums, axis=0), mask=at < columns)


def _operand_or(value: Tensor | None, order: Order, like: Operand) -> Operand:
    return like._replace(batch=0) if value is None else operand(value, order)


def forward(x: Tensor, mean: Tensor | None, log_scale: Tensor | None) -> Tensor:
    """``gaussian_log_prob_forward``: see ``hybridkern/ops/gaussian_log_prob.py``."""
    dtype = total_dtype(x)
    if x.numel() == 0:
        return x.new_zeros((x.shape[0],), dtype=dtype)
    x = foldable(x)
    mean, log_scale = (None if value is None else foldable(value) for value in (mean, log_scale))
    order = order_of(x)
    xo = operand(x, order)
    mo, so = _operand_or(mean, order, xo), _operand_or(log_scale, order, xo)
    tile = tile_of(order.rows, order.columns, vector_of(x, mean, log_scale), True)
    out = torch.empty((order.rows,), dtype=dtype, device=x.device)
    several = tile.chunks > 1
    partial = torch.empty((order.rows, tile.chunks), dtype=dtype, device=x.device) if several else out
    operands = {"X": xo, "M": mo, "S": so}
    launch_tiles(forward_kernel, tile, order, (x, mean, log_scale, partial), operands, CONSTANT=_CONSTANT)
    if several:
        row_sums(partial, None, out)
    return out


def backward(grad: Tensor, x: Tensor, mean: Tensor | None, log_scale: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """``gaussian_log_prob_backward``: gradients in ``x``, ``mean`` and ``log_scale``; an empty one for ``None``."""
    grad_x = Output(torch.empty_like(x))
    params = (mean, log_scale)
    grads = [x.new_empty((0,)) if value is None else value.new_empty(value.shape) for value in params]
    given = [value for value in params if value is not None]
    if x.numel() == 0:
        return grad_x.finish(), grads[0].zero_(), grads[1].zero_()
    shared = bool(given) and is_shared(given[0], x)
    x = foldable(x)
    mean, log_scale = (None if value is None else foldable(value) for value in (mean, log_scale))
    order = order_of(x)
    xo, gxo = operand(x, order), operand(grad_x.tensor, order)
    mo, so = _operand_or(mean, order, xo), _operand_or(log_scale, order, xo)
    gpo = operand(grads[0] if mean is not None else grads[1], order) if given else gxo
    tile = (batch_tile_of(order.rows, order.columns, vector_of(x)) if shared
            else tile_of(order.rows, order.columns, vector_of(x, mean, log_scale), False))  # fmt: skip
    targets: Sequence[Tensor] = grads
    partial = None
    if shared:
        partial = torch.empty((len(given), tile.chunks, order.columns), dtype=total_dtype(x), device=x.device)
        sums = iter(partial.unbind(0))
        targets = [grad if value is None else next(sums) for grad, value in zip(grads, params, strict=True)]
    launch_tiles(
        backward_kernel, tile, order, (grad, x, mean, log_scale, grad_x.tensor, *targets),
        {"X": xo, "M": mo, "S": so, "GX": gxo, "GP": gpo}, (), (grad.stride(0),), SHARED=shared,
    )  # fmt: skip
    if partial is not None:
        column_sums(partial, [grad for grad, value in zip(grads, params, strict=True) if value is not None], order)
    return grad_x.finish(), grads[0], grads[1]


OPERATORS = {"gaussian_log_prob_forward": forward, "gaussian_log_prob_backward": backward}
