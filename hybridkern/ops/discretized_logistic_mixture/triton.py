"""Log-probability of a mixture of discretized logistics: kernels of ``discretized_logistic_mixture_*``.

The components are a dimension of the tile, padded to a power of two and held in registers: every parameter is read
once, also where the derivatives need the sum over all components first. A program is one warp, so that it asks for
``x`` once, and sums over components without shared memory; 32 of them on a multiprocessor are half of its threads.

``log sum_k w_k P_k`` with ``t_k = logit_k - max logit - outside_k`` is taken relative to the largest ``t_k``. The
derivatives hang on differences of the ``t_k``, which far outside are large: they are carried in two parts there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridkern._tensors import total_dtype
from hybridkern.ops._triton import math as hk
from hybridkern.ops._triton.density import gradient_of, is_shared
from hybridkern.ops._triton.launch import launch_tiles
from hybridkern.ops._triton.layout import (
    Order,
    Output,
    columns_of,
    element,
    foldable,
    multiple,
    offsets,
    operand,
    order_of,
    part_of,
    tile_at,
)
from hybridkern.ops._triton.reduce import column_sums, row_sums
from hybridkern.ops._triton.tiles import Tile, batch_tile_of, power_of_two, tile_of
from hybridkern.ops.discretized_logistic.triton_math import bin_numbers, logistic_slopes, logistic_value, scale_part


@triton.jit
def _load_components(
    pointer, row, column, k, mask, extent, batch, component, outer, inner,
    DENSE: tl.constexpr, WORK: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    at = row * multiple(batch, ALIGN) + k.to(tl.int64) * multiple(component, ALIGN)
    at += offsets(column, extent, multiple(outer, ALIGN), inner, DENSE)
    return tl.load(pointer + at, mask=mask, other=0.0).to(WORK)


@triton.jit
def _below_top(logits, is_component):
    # relative to the largest logit, with the rounding error; the largest is NaN where any is
    top = tl.max(tl.where(is_component & (logits == logits), logits, -float("inf")), axis=0, keep_dims=True)
    below = logits - top
    lost = hk.sum_error(logits, tl.zeros_like(logits) - top, below)
    lost = tl.where(below > -1e30, lost, tl.zeros_like(below))
    weight = tl.where(is_component, hk.exponential_of_negative(below), 0.0)
    return below, lost, weight


@triton.jit
def _shares(part, height, low, is_component):
    # part_k * exp(t_k - max t), and max t
    top = tl.max(tl.where(is_component & (height == height), height, -float("inf")), axis=0, keep_dims=True)
    share = part * hk.exponential_of_negative(height - top) * (1.0 + low)
    return tl.where(is_component, share, 0.0), top


@triton.jit
def forward_kernel(
    x, logits, mean, log_scale, out, rows, columns, extent, steps, chunks,
    x_batch, x_outer, x_inner, l_batch, l_component, l_outer, l_inner,
    m_batch, m_component, m_outer, m_inner, s_batch, s_component, s_outer, s_inner, o_batch, o_outer, o_inner,
    COMPONENTS: tl.constexpr, PADDED: tl.constexpr, REDUCE: tl.constexpr,
    BIN: tl.constexpr, HALF: tl.constexpr, HALF_LOW: tl.constexpr,
    X_DENSE: tl.constexpr, L_DENSE: tl.constexpr, M_DENSE: tl.constexpr, S_DENSE: tl.constexpr, O_DENSE: tl.constexpr,
    WIDE: tl.constexpr, WORK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    example, chunk = part_of(chunks, WIDE, ROWS)
    columns = multiple(columns, ALIGN)
    extent = multiple(extent, ALIGN)
    row = example.to(tl.int64)[None, :, None]
    k = tl.arange(0, PADDED)[:, None, None]
    is_component = k < COMPONENTS
    sums = tl.zeros([ROWS, COLUMNS], WORK)
    for step in range(chunk * steps, (chunk + 1) * steps):
        column = columns_of(step, COLUMNS, WIDE)[None, :, :]
        mask = (row < rows) & (column < columns)
        each = mask & is_component
        x_at = element(row, column, extent, x_batch, x_outer, x_inner, X_DENSE, ALIGN)
        value = tl.load(x + x_at, mask=mask, other=0.0).to(WORK)
        l = _load_components(
            logits, row, column, k, each, extent, l_batch, l_component, l_outer, l_inner, L_DENSE, WORK, ALIGN
        )
        location = _load_components(
            mean, row, column, k, each, extent, m_batch, m_component, m_outer, m_inner, M_DENSE, WORK, ALIGN
        )
        log_s = _load_components(
            log_scale, row, column, k, each, extent, s_batch, s_component, s_outer, s_inner, S_DENSE, WORK, ALIGN
        )
        below, _, weight = _below_top(l, is_component)
        inverse, _, _, mass, excess = scale_part(log_s, BIN)
        outside, _, rest = logistic_value(tl.zeros_like(l) + value, location, inverse, HALF, HALF_LOW)
        height = below - hk.at_most(outside + excess, 1e37)
        share, top = _shares(mass / rest, height, tl.zeros_like(height), is_component)
        log_p = hk.logarithm(tl.sum(share, axis=0) / tl.sum(weight, axis=0)) + tl.sum(top, axis=0)
        flat = tl.sum(tl.abs(value), axis=0)
        log_p = tl.where(flat == float("inf"), -float("inf"), log_p)
        if REDUCE:
            sums += tl.where(tl.max(mask.to(tl.int32), axis=0) > 0, log_p, 0.0)
        else:
            o_at = element(row, column, extent, o_batch, o_outer, o_inner, O_DENSE, ALIGN)
            tl.store(out + o_at, log_p[None, :, :].to(out.dtype.element_ty), mask=mask)
    if REDUCE:
        tl.store(out + example.to(tl.int64) * chunks + chunk, tl.sum(sums, axis=1), mask=example < rows)


@triton.jit
def backward_kernel(
    grad, x, logits, mean, log_scale, grad_x, grad_logits, grad_mean, grad_log_scale,
    rows, columns, extent, steps, chunks,
    x_batch, x_outer, x_inner, l_batch, l_component, l_outer, l_inner,
    m_batch, m_component, m_outer, m_inner, s_batch, s_component, s_outer, s_inner,
    gx_batch, gx_outer, gx_inner, gp_batch, gp_component, gp_outer, gp_inner, g_batch, g_outer, g_inner,
    COMPONENTS: tl.constexpr, PADDED: tl.constexpr, REDUCE: tl.constexpr, SHARED: tl.constexpr,
    BIN: tl.constexpr, HALF: tl.constexpr, HALF_LOW: tl.constexpr,
    X_DENSE: tl.constexpr, L_DENSE: tl.constexpr, M_DENSE: tl.constexpr, S_DENSE: tl.constexpr,
    GX_DENSE: tl.constexpr, GP_DENSE: tl.constexpr, G_DENSE: tl.constexpr,
    WIDE: tl.constexpr, WORK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    # A program walks along an example; or, where the batch shares the parameters, down the batch, summing.
    program = tl.program_id(0)
    chunk = program % chunks
    group = program // chunks
    columns = multiple(columns, ALIGN)
    extent = multiple(extent, ALIGN)
    k = tl.arange(0, PADDED)[:, None, None]
    is_component = k < COMPONENTS
    logit_sums = tl.zeros([PADDED, ROWS, COLUMNS], WORK)
    mean_sums = tl.zeros([PADDED, ROWS, COLUMNS], WORK)
    scale_sums = tl.zeros([PADDED, ROWS, COLUMNS], WORK)
    for step in range(chunk * steps, (chunk + 1) * steps):
        row, column, _, mask = tile_at(step, group, rows, columns, SHARED, WIDE, ROWS, COLUMNS)
        row = row[None, :, :]
        column = column[None, :, :]
        mask = mask[None, :, :]
        each = mask & is_component
        if REDUCE:
            upstream = tl.load(grad + row * g_batch, mask=row < rows, other=0.0).to(WORK)
        else:
            g_at = element(row, column, extent, g_batch, g_outer, g_inner, G_DENSE, ALIGN)
            upstream = tl.load(grad + g_at, mask=mask, other=0.0).to(WORK)
        x_at = element(row, column, extent, x_batch, x_outer, x_inner, X_DENSE, ALIGN)
        value = tl.load(x + x_at, mask=mask, other=0.0).to(WORK)
        l = _load_components(
            logits, row, column, k, each, extent, l_batch, l_component, l_outer, l_inner, L_DENSE, WORK, ALIGN
        )
        location = _load_components(
            mean, row, column, k, each, extent, m_batch, m_component, m_outer, m_inner, M_DENSE, WORK, ALIGN
        )
        log_s = _load_components(
            log_scale, row, column, k, each, extent, s_batch, s_component, s_outer, s_inner, S_DENSE, WORK, ALIGN
        )
        below, lost, weight = _below_top(l, is_component)
        inverse, inverse_low, exp_h, mass, excess = scale_part(log_s, BIN)
        outside, outside_low, per_rest, slope_x, slope_s = logistic_slopes(
            tl.zeros_like(l) + value, location, inverse, inverse_low, exp_h, mass, BIN, HALF, HALF_LOW
        )
        out_of_reach = hk.at_most(outside + excess, 1e37)
        beyond = hk.sum_error(outside, excess, outside + excess)
        height = below - out_of_reach
        low = hk.sum_error(below, -out_of_reach, height) + (lost - outside_low - beyond)
        low = tl.where(tl.abs(low) < 0.5, low, tl.zeros_like(low))
        share, _ = _shares(mass * per_rest, height, low, is_component)
        posterior = share / tl.sum(share, axis=0, keep_dims=True)
        prior = weight / tl.sum(weight, axis=0, keep_dims=True)
        part_x = tl.where(is_component, posterior * slope_x, 0.0)
        own_x = tl.sum(part_x, axis=0, keep_dims=True) * upstream
        own_l = (posterior - prior) * upstream
        own_m = part_x * -upstream
        own_s = (posterior * slope_s) * upstream
        gx_at = element(row, column, extent, gx_batch, gx_outer, gx_inner, GX_DENSE, ALIGN)
        tl.store(grad_x + gx_at, own_x.to(grad_x.dtype.element_ty), mask=mask)
        if SHARED:
            logit_sums += tl.where(each, own_l, 0.0)
            mean_sums += tl.where(each, own_m, 0.0)
            scale_sums += tl.where(each, own_s, 0.0)
        else:
            to = row * multiple(gp_batch, ALIGN) + k.to(tl.int64) * multiple(gp_component, ALIGN)
            to += offsets(column, extent, multiple(gp_outer, ALIGN), gp_inner, GP_DENSE)
            tl.store(grad_logits + to, own_l.to(grad_logits.dtype.element_ty), mask=each)
            tl.store(grad_mean + to, own_m.to(grad_mean.dtype.element_ty), mask=each)
            tl.store(grad_log_scale + to, own_s.to(grad_log_scale.dtype.element_ty), mask=each)
    if SHARED:
        at = group.to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
        which = tl.arange(0, PADDED)[:, None]
        to = (chunk.to(tl.int64) * COMPONENTS + which) * columns + at
        inside = (which < COMPONENTS) & (at < columns)
        tl.store(grad_logits + to, tl.sum(logit_sums, axis=1), mask=inside)
        tl.store(grad_mean + to, tl.sum(mean_sums, axis=1), mask=inside)
        tl.store(grad_log_scale + to, tl.sum(scale_sums, axis=1), mask=inside)


def _narrowest(*values: Tensor) -> int:
    return min(value.element_size() for value in values)


_EACH = 4  # numbers that a thread holds of each array: one access of 16 bytes, in registers that half the threads find


def _tile(order: Order, components: int, narrowest: int, reduces: bool | None) -> Tile:
    """The tile of a kernel that sums over examples (True), over nothing (False) or over the batch (None).

    Its columns are a sector of 32 bytes or more of the operand with the ``narrowest`` elements, in bytes.
    """
    padded = power_of_two(components)
    each = max(_EACH, padded // narrowest)
    if reduces is None:
        return batch_tile_of(order.rows, order.columns, each, padded, warps=1)
    return tile_of(order.rows, order.columns, each, reduces, padded, warps=1)


def forward(x: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float, reduce: bool) -> Tensor:
    """``discretized_logistic_mixture_forward``: see ``hybridkern/ops/discretized_logistic_mixture.py``."""
    dtype = total_dtype(x)
    if x.numel() == 0:
        return x.new_zeros((x.shape[0],), dtype=dtype) if reduce else torch.empty_like(x)
    out = Output(torch.empty((x.shape[0],), dtype=dtype, device=x.device) if reduce else torch.empty_like(x))
    x, logits, mean, log_scale = foldable(x), foldable(logits, 3), foldable(mean, 3), foldable(log_scale, 3)
    order = order_of(x)
    components = logits.shape[1]
    xo = operand(x, order)
    params = {name: operand(value, order, 2) for name, value in (("L", logits), ("M", mean), ("S", log_scale))}
    tile = _tile(order, components, _narrowest(x, logits, mean, log_scale), reduce)
    target = out.tensor
    several = reduce and tile.chunks > 1
    if several:
        target = torch.empty((order.rows, tile.chunks), dtype=dtype, device=x.device)
    oo = xo if reduce else operand(target, order)
    launch_tiles(
        forward_kernel, tile, order, (x, logits, mean, log_scale, target), {"X": xo, **params, "O": oo},
        COMPONENTS=components, PADDED=power_of_two(components), REDUCE=reduce,
        **bin_numbers(float(bin_width), dtype is torch.float32),
    )  # fmt: skip
    if several:
        row_sums(target, None, out.tensor)
    return out.finish()


def backward(
    grad: Tensor, x: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float, reduce: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``discretized_logistic_mixture_backward``: gradients in ``x`` and the parameters."""
    grad_x = Output(torch.empty_like(x))
    grads = [value.new_empty(value.shape) for value in (logits, mean, log_scale)]
    if x.numel() == 0:
        return grad_x.finish(), grads[0].zero_(), grads[1].zero_(), grads[2].zero_()
    shared = is_shared(logits, x)
    x, logits, mean, log_scale = foldable(x), foldable(logits, 3), foldable(mean, 3), foldable(log_scale, 3)
    # the sums over the batch are contiguous, component by component: walked in that order
    order = order_of(x)._replace(pixel_major=False) if shared else order_of(x)
    components = logits.shape[1]
    grad = grad if reduce else foldable(grad)
    go = gradient_of(grad, order, reduce)
    xo, gxo = operand(x, order), operand(grad_x.tensor, order)
    params = {name: operand(value, order, 2) for name, value in (("L", logits), ("M", mean), ("S", log_scale))}
    gpo = operand(grads[0], order, 2)
    tile = _tile(order, components, _narrowest(x, logits, mean, log_scale), None if shared else False)
    columns = components * order.columns
    partial = torch.empty((3, tile.chunks, columns), dtype=total_dtype(x), device=x.device) if shared else None
    targets: Sequence[Tensor] = grads if partial is None else partial.unbind(0)
    launch_tiles(
        backward_kernel, tile, order, (grad, x, logits, mean, log_scale, grad_x.tensor, *targets),
        {"X": xo, **params, "GX": gxo, "GP": gpo, "G": go},
        COMPONENTS=components, PADDED=power_of_two(components), REDUCE=reduce, SHARED=shared,
        **bin_numbers(float(bin_width), x.dtype is not torch.float64),
    )  # fmt: skip
    if partial is not None:
        column_sums(partial, [grad.view(1, 1, -1) for grad in grads], Order(1, 1, columns, False))
    return grad_x.finish(), grads[0], grads[1], grads[2]


OPERATORS = {"discretized_logistic_mixture_forward": forward, "discretized_logistic_mixture_backward": backward}
