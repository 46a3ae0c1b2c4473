"""The rational-quadratic spline: Triton kernels.

The bins are a dimension of the tile, padded to a power of two and held in registers: every raw parameter is read once.
A program is one warp, so that it asks for ``x`` once, and sums over bins without shared memory.
"""

from __future__ import annotations

import triton
import triton.language as tl

from hybridkern.ops._triton import math as hk
from hybridkern.ops._triton.layout import columns_of, element, multiple, part_of, tile_at
from hybridkern.ops.rational_quadratic_spline import triton_math as m


@triton.jit
def _rows(raw, row, column, number, mask, extent, batch, component, outer, inner, DENSE: tl.constexpr,
          WORK: tl.constexpr, ALIGN: tl.constexpr):  # fmt: skip
    at = number.to(tl.int64) * component + element(row, column, extent, batch, outer, inner, DENSE, ALIGN)
    return tl.load(raw + at, mask=mask, other=0.0).to(WORK)


@triton.jit
def _spline_of(raw, row, column, k, i, mask, extent, batch, component, outer, inner, BINS: tl.constexpr,
               KNOTS: tl.constexpr, DENSE: tl.constexpr, WORK: tl.constexpr, ALIGN: tl.constexpr):  # fmt: skip
    """Raw widths and heights of all bins, and raw derivatives."""
    bins, knots = mask & (k < BINS), mask & (i < KNOTS)
    w = _rows(raw, row, column, k, bins, extent, batch, component, outer, inner, DENSE, WORK, ALIGN)
    h = _rows(raw, row, column, BINS + k, bins, extent, batch, component, outer, inner, DENSE, WORK, ALIGN)
    d = _rows(raw, row, column, 2 * BINS + i, knots, extent, batch, component, outer, inner, DENSE, WORK, ALIGN)
    return w, h, d


@triton.jit
def _terms(t, u, s, d0, d1):
    tt = t * t
    uu = u * u
    tu = t * u
    inverse_d = 1.0 / (s * (tt + uu) + (d0 + d1) * tu)
    return tt, uu, tu, inverse_d, s * inverse_d, d1 * tt + 2.0 * s * tu + d0 * uu


@triton.jit
def _locate(
    x, raw_w, raw_h, raw_d, is_bin, k, i,
    BINS: tl.constexpr, TIED: tl.constexpr, FIXED: tl.constexpr, ZUKO: tl.constexpr, INVERSE: tl.constexpr,
    MIDDLE: tl.constexpr, RANGE: tl.constexpr, SHARE_W: tl.constexpr, SHARE_H: tl.constexpr,
    FLOOR_W: tl.constexpr, FLOOR_H: tl.constexpr, LEAST: tl.constexpr, GAIN: tl.constexpr, BETA: tl.constexpr,
    INVERSE_CLIP: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    # the bin of x: exponentials of both families, place and size of the bin in both, in fixed point
    e_w, shrink_w = m.exponentials(raw_w, is_bin, ZUKO, GAIN, INVERSE_CLIP)
    e_h, shrink_h = m.exponentials(raw_h, is_bin, ZUKO, GAIN, INVERSE_CLIP)
    w, total_w, lost_w, per_w = m.sizes_of(e_w, is_bin, SHARE_W, FLOOR_W, WHOLE)
    h, total_h, lost_h, per_h = m.sizes_of(e_h, is_bin, SHARE_H, FLOOR_H, WHOLE)
    end_w = tl.cumsum(w, axis=0)
    end_h = tl.cumsum(h, axis=0)
    if INVERSE:
        place, lost_x = m.place_of(x, total_h, lost_h, MIDDLE, RANGE, WHOLE)
        here = is_bin & (place >= end_h - h) & ((place < end_h) | (k == BINS - 1))
    else:
        place, lost_x = m.place_of(x, total_w, lost_w, MIDDLE, RANGE, WHOLE)
        here = is_bin & (place >= end_w - w) & ((place < end_w) | (k == BINS - 1))
    size_w = m.pick(here, w)
    size_h = m.pick(here, h)
    at_w = m.pick(here, end_w) - size_w
    at_h = m.pick(here, end_h) - size_h
    one = tl.zeros_like(size_w) + 1
    size_w = tl.maximum(size_w, one)
    size_h = tl.maximum(size_h, one)
    bin_k = m.pick(here, tl.zeros_like(w) + k)
    lower, slope_0 = m.knot(m.pick(i == bin_k - FIXED, raw_d), ZUKO, LEAST, BETA, INVERSE_CLIP)
    above = bin_k + (1 - FIXED)
    if TIED:
        above = tl.where(bin_k == BINS - 1, tl.zeros_like(above), above)
    upper, slope_1 = m.knot(m.pick(i == above, raw_d), ZUKO, LEAST, BETA, INVERSE_CLIP)
    if FIXED:
        lower = tl.where(bin_k == 0, tl.zeros_like(lower) + 1.0, lower)
        upper = tl.where(bin_k == BINS - 1, tl.zeros_like(upper) + 1.0, upper)
    # NaN of x, or of a width or height, is lost in fixed point
    nan = lost_x + (per_w - per_w) + (per_h - per_h)
    if INVERSE:
        per_size = 1.0 / size_h.to(x.dtype)
        first = (place - at_h).to(x.dtype) * per_size + nan
        second = (at_h + size_h - place).to(x.dtype) * per_size
    else:
        per_size = 1.0 / size_w.to(x.dtype)
        first = (place - at_w).to(x.dtype) * per_size + nan
        second = (at_w + size_w - place).to(x.dtype) * per_size
    width = m.part_of(size_w, lost_w, WHOLE)
    height = m.part_of(size_h, lost_h, WHOLE)
    s = height / width
    if INVERSE:
        first, second = m.solve(first, second, s, lower, upper)
    return (first, second, s, width, height, lower, upper, slope_0, slope_1, bin_k, above, at_w, at_h, size_w, size_h,
            lost_w, lost_h, e_w, e_h, per_w, per_h, shrink_w, shrink_h)  # fmt: skip


@triton.jit
def forward_kernel(
    x, raw, log_det, y, new_log_det, rows, columns, extent, steps, chunks,
    x_batch, x_outer, x_inner, p_batch, p_component, p_outer, p_inner, y_batch, y_outer, y_inner, log_det_stride,
    BINS: tl.constexpr, PADDED: tl.constexpr, KNOTS: tl.constexpr, PADDED_KNOTS: tl.constexpr,
    TIED: tl.constexpr, FIXED: tl.constexpr, WRAPS: tl.constexpr, ZUKO: tl.constexpr, INVERSE: tl.constexpr,
    LOW: tl.constexpr, HIGH: tl.constexpr, MIDDLE: tl.constexpr, RANGE: tl.constexpr,
    SHARE_W: tl.constexpr, SHARE_H: tl.constexpr, FLOOR_W: tl.constexpr, FLOOR_H: tl.constexpr,
    LEAST: tl.constexpr, GAIN: tl.constexpr, BETA: tl.constexpr, INVERSE_CLIP: tl.constexpr, WHOLE: tl.constexpr,
    X_DENSE: tl.constexpr, P_DENSE: tl.constexpr, Y_DENSE: tl.constexpr,
    WIDE: tl.constexpr, WORK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    example, chunk = part_of(chunks, WIDE, ROWS)
    columns = multiple(columns, ALIGN)
    extent = multiple(extent, ALIGN)
    row = example.to(tl.int64)[None, :, None]
    k = tl.arange(0, PADDED)[:, None, None]
    i = tl.arange(0, PADDED_KNOTS)[:, None, None]
    sums = tl.zeros([ROWS, COLUMNS], WORK)
    for step in range(chunk * steps, (chunk + 1) * steps):
        column = columns_of(step, COLUMNS, WIDE)[None, :, :]
        mask = (row < rows) & (column < columns)
        is_bin = k < BINS
        x_at = element(row, column, extent, x_batch, x_outer, x_inner, X_DENSE, ALIGN)
        value = tl.load(x + x_at, mask=mask, other=0.0).to(WORK)
        raw_w, raw_h, raw_d = _spline_of(raw, row, column, k, i, mask, extent, p_batch, p_component, p_outer, p_inner,
                                         BINS, KNOTS, P_DENSE, WORK, ALIGN)  # fmt: skip
        if WRAPS and not INVERSE:
            value = m.turned(value, LOW, MIDDLE, RANGE)
        (t, u, s, width, height, d0, d1, _, _, _, _, at_w, at_h, _, _, lost_w, lost_h, _, _, _, _, _, _) = _locate(
            value, raw_w, raw_h, raw_d, is_bin, k, i, BINS, TIED, FIXED, ZUKO, INVERSE, MIDDLE, RANGE,
            SHARE_W, SHARE_H, FLOOR_W, FLOOR_H, LEAST, GAIN, BETA, INVERSE_CLIP, WHOLE,
        )  # fmt: skip
        _, _, _, inverse_d, ratio, q = _terms(t, u, s, d0, d1)
        log_slope = hk.logarithm((ratio * q) * ratio)
        if INVERSE:
            log_slope = -log_slope
            at = at_w
            lost = lost_w
            inner = t * width
        else:
            at = at_h
            lost = lost_h
            inner = (s * t * t + d0 * t * u) * inverse_d * height
        even = at.to(WORK) + at.to(WORK) * lost
        if WHOLE <= 2147483647:  # a place has more digits than float32: its distance from the middle has not
            even = (at + (at.to(WORK) * lost).to(tl.int32) - WHOLE // 2).to(WORK)
        else:
            even = even - WHOLE / 2
        out = even * (RANGE / WHOLE) + (inner * RANGE + MIDDLE)
        out = hk.at_most(hk.at_least(out, LOW), HIGH)
        outside = (value < LOW) | (value > HIGH)
        out = tl.where(outside, value, out)
        log_slope = tl.where(outside, tl.zeros_like(log_slope), log_slope)
        if WRAPS and INVERSE:
            out = m.turned(out, LOW, MIDDLE, RANGE)
        y_at = element(row, column, extent, y_batch, y_outer, y_inner, Y_DENSE, ALIGN)
        tl.store(y + y_at, out.to(y.dtype.element_ty), mask=mask)
        sums += tl.sum(tl.where(mask, log_slope, tl.zeros_like(log_slope)), axis=0)
    own = tl.sum(sums, axis=1).to(new_log_det.dtype.element_ty)
    if log_det is not None:
        own += tl.load(log_det + example.to(tl.int64) * log_det_stride, mask=example < rows).to(own.dtype)
    tl.store(new_log_det + example.to(tl.int64) * chunks + chunk, own, mask=example < rows)


@triton.jit
def _of_shares(e, per_sum, shrink, at, size, lost, bin_k, k, grad_at, grad_size, SHARE: tl.constexpr,
               FLOOR: tl.constexpr, GAIN: tl.constexpr, WHOLE: tl.constexpr):  # fmt: skip
    # gradients of raw sizes, from those of the place of the bin and of its size
    before = (m.part_of(at, lost, WHOLE) - bin_k.to(e.dtype) * FLOOR) * (1 / SHARE)
    own = (m.part_of(size, lost, WHOLE) - FLOOR) * (1 / SHARE)
    mean = grad_at * before + grad_size * own
    zero = tl.zeros_like(mean)
    each = tl.where(k < bin_k, grad_at, tl.where(k == bin_k, grad_size, zero))
    return e * (per_sum * (SHARE * GAIN)) * (each - mean) * (shrink * shrink)


@triton.jit
def _gradients(t, u, s, width, height, d0, d1, slope_0, slope_1, grad, grad_log, INVERSE: tl.constexpr):
    """Of the value; of where its bin begins and how wide it is, in x and in y; of the raw derivatives at its ends."""
    tt, uu, tu, inverse_d, ratio, q = _terms(t, u, s, d0, d1)
    inverse_q = 1.0 / q
    inverse_w = 1.0 / width
    both = d0 + d1
    side = u - t
    log_t = 2.0 * ((d1 * t - d0 * u + s * side) * inverse_q - (both - 2.0 * s) * side * inverse_d)
    height_t = height * (ratio * q * inverse_d)
    if INVERSE:
        of_log = -grad_log
        of_t = -grad * width
        of_y = (of_t - of_log * log_t) / height_t
    else:
        of_log = grad_log
        of_y = grad
        of_t = of_y * height_t + of_log * log_t
    part = tu * inverse_d
    part_v = of_y * height * part * inverse_d
    of_s = part_v * (d1 * tt - d0 * uu) + of_log * (2.0 * tu) * (both * inverse_d / s + inverse_q)
    g0 = (part_v * u * (s * u + d1 * t) + of_log * (uu * inverse_q - 2.0 * part)) * slope_0
    g1 = (of_log * (tt * inverse_q - 2.0 * part) - part_v * t * (s * t + d0 * u)) * slope_1
    of_x0 = -of_t * inverse_w
    of_w = -(of_t * t + of_s * s) * inverse_w
    of_h = of_y * ((s * tt + d0 * tu) * inverse_d) + of_s * inverse_w
    if INVERSE:
        of_x = -of_y
    else:
        of_x = -of_x0
    return of_x, of_x0, of_w, of_y, of_h, g0, g1


@triton.jit
def backward_kernel(
    x, raw, grad_y, grad_log_det, grad_x, grad_params, rows, columns, extent, steps, chunks,
    x_batch, x_outer, x_inner, p_batch, p_component, p_outer, p_inner, gy_batch, gy_outer, gy_inner,
    gx_batch, gx_outer, gx_inner, gp_batch, gp_component, gp_outer, gp_inner, log_det_stride,
    SHARED: tl.constexpr, BINS: tl.constexpr, PADDED: tl.constexpr, KNOTS: tl.constexpr, PADDED_KNOTS: tl.constexpr,
    TIED: tl.constexpr, FIXED: tl.constexpr, WRAPS: tl.constexpr, ZUKO: tl.constexpr, INVERSE: tl.constexpr,
    LOW: tl.constexpr, HIGH: tl.constexpr, MIDDLE: tl.constexpr, RANGE: tl.constexpr,
    SHARE_W: tl.constexpr, SHARE_H: tl.constexpr, FLOOR_W: tl.constexpr, FLOOR_H: tl.constexpr,
    LEAST: tl.constexpr, GAIN: tl.constexpr, BETA: tl.constexpr, INVERSE_CLIP: tl.constexpr, WHOLE: tl.constexpr,
    X_DENSE: tl.constexpr, P_DENSE: tl.constexpr, GY_DENSE: tl.constexpr, GX_DENSE: tl.constexpr,
    GP_DENSE: tl.constexpr,
    WIDE: tl.constexpr, WORK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    # A program walks along an example; or, where the batch shares the parameters, down the batch, summing.
    program = tl.program_id(0)
    chunk = program % chunks
    group = program // chunks
    columns = multiple(columns, ALIGN)
    extent = multiple(extent, ALIGN)
    k = tl.arange(0, PADDED)[:, None, None]
    i = tl.arange(0, PADDED_KNOTS)[:, None, None]
    is_bin = k < BINS
    sums_w = tl.zeros([PADDED, ROWS, COLUMNS], WORK)
    sums_h = tl.zeros([PADDED, ROWS, COLUMNS], WORK)
    sums_d = tl.zeros([PADDED_KNOTS, ROWS, COLUMNS], WORK)
    for step in range(chunk * steps, (chunk + 1) * steps):
        row, column, _, mask = tile_at(step, group, rows, columns, SHARED, WIDE, ROWS, COLUMNS)
        row = row[None, :, :]
        column = column[None, :, :]
        mask = mask[None, :, :]
        x_at = element(row, column, extent, x_batch, x_outer, x_inner, X_DENSE, ALIGN)
        value = tl.load(x + x_at, mask=mask, other=0.0).to(WORK)
        raw_w, raw_h, raw_d = _spline_of(raw, row, column, k, i, mask, extent, p_batch, p_component, p_outer, p_inner,
                                         BINS, KNOTS, P_DENSE, WORK, ALIGN)  # fmt: skip
        passed = tl.zeros_like(value)
        if grad_y is not None:
            gy_at = element(row, column, extent, gy_batch, gy_outer, gy_inner, GY_DENSE, ALIGN)
            passed = tl.load(grad_y + gy_at, mask=mask, other=0.0).to(WORK)
        grad_log = tl.zeros_like(value)
        if grad_log_det is not None:
            grad_log += tl.load(grad_log_det + row * log_det_stride, mask=row < rows, other=0.0).to(WORK)
        if WRAPS and not INVERSE:
            value = m.turned(value, LOW, MIDDLE, RANGE)
        (t, u, s, width, height, d0, d1, slope_0, slope_1, bin_k, above, at_w, at_h, size_w, size_h, lost_w, lost_h,
         e_w, e_h, per_w, per_h, shrink_w, shrink_h) = _locate(
            value, raw_w, raw_h, raw_d, is_bin, k, i, BINS, TIED, FIXED, ZUKO, INVERSE, MIDDLE, RANGE,
            SHARE_W, SHARE_H, FLOOR_W, FLOOR_H, LEAST, GAIN, BETA, INVERSE_CLIP, WHOLE,
        )  # fmt: skip
        outside = (value < LOW) | (value > HIGH)
        grad = tl.where(outside, tl.zeros_like(passed), passed) * RANGE
        grad_log = tl.where(outside, tl.zeros_like(grad_log), grad_log)
        of_x, of_x0, of_w, of_y, of_h, g0, g1 = _gradients(
            t, u, s, width, height, d0, d1, slope_0, slope_1, grad, grad_log, INVERSE
        )  # fmt: skip
        gx = tl.where(outside, passed, of_x * (1 / RANGE))
        gx_at = element(row, column, extent, gx_batch, gx_outer, gx_inner, GX_DENSE, ALIGN)
        tl.store(grad_x + gx_at, gx.to(grad_x.dtype.element_ty), mask=mask)
        own_w = _of_shares(e_w, per_w, shrink_w, at_w, size_w, lost_w, bin_k, k, of_x0, of_w, SHARE_W, FLOOR_W, GAIN,
                           WHOLE)  # fmt: skip
        own_h = _of_shares(e_h, per_h, shrink_h, at_h, size_h, lost_h, bin_k, k, of_y, of_h, SHARE_H, FLOOR_H, GAIN,
                           WHOLE)  # fmt: skip
        zero = tl.zeros_like(g0)
        own_d = tl.where(i == bin_k - FIXED, g0, zero) + tl.where(i == above, g1, zero)
        if SHARED:
            sums_w += tl.where(mask & is_bin, own_w, tl.zeros_like(own_w))
            sums_h += tl.where(mask & is_bin, own_h, tl.zeros_like(own_h))
            sums_d += tl.where(mask & (i < KNOTS), own_d, tl.zeros_like(own_d))
        else:
            at = element(row, column, extent, gp_batch, gp_outer, gp_inner, GP_DENSE, ALIGN)
            to = grad_params + at
            kind = grad_params.dtype.element_ty
            tl.store(to + k.to(tl.int64) * gp_component, own_w.to(kind), mask=mask & is_bin)
            tl.store(to + (BINS + k).to(tl.int64) * gp_component, own_h.to(kind), mask=mask & is_bin)
            tl.store(to + (2 * BINS + i).to(tl.int64) * gp_component, own_d.to(kind), mask=mask & (i < KNOTS))
    if SHARED:
        at = group.to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
        bins = tl.arange(0, PADDED)[:, None]
        knots = tl.arange(0, PADDED_KNOTS)[:, None]
        # a stretch for each number, of as many rows as there are chunks
        apart = (tl.full((), 0, tl.int64) + chunks) * columns
        to = grad_params + chunk.to(tl.int64) * columns + at
        tl.store(to + bins * apart, tl.sum(sums_w, axis=1), mask=(bins < BINS) & (at < columns))
        tl.store(to + (BINS + bins) * apart, tl.sum(sums_h, axis=1), mask=(bins < BINS) & (at < columns))
        tl.store(to + (2 * BINS + knots) * apart, tl.sum(sums_d, axis=1), mask=(knots < KNOTS) & (at < columns))
