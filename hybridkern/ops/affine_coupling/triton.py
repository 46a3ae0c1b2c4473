"""Affine coupling: kernels and launchers of the operators ``affine_coupling_*``."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridkern._tensors import total_dtype
from hybridkern.ops._triton.launch import launch_tiles
from hybridkern.ops._triton.layout import (
    Operand,
    Order,
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
from hybridkern.ops.affine_coupling.triton_math import Spec, scale_terms, spec_of

_INPUT, _OUTPUT, _RECOVER = range(3)
INPUT, RECOVER = tl.constexpr(_INPUT), tl.constexpr(_RECOVER)


@triton.jit
def forward_kernel(
    x, raw, log_det, y, new_log_det, rows, columns, extent, steps, chunks,
    x_batch, x_outer, x_inner, p_batch, p_outer, p_inner, y_batch, y_outer, y_inner, a_start, t_start, log_det_stride,
    MAP: tl.constexpr, NEGATE: tl.constexpr, BEFORE: tl.constexpr, CLAMP: tl.constexpr, OFFSET: tl.constexpr,
    EPS: tl.constexpr, GAIN: tl.constexpr, SHIFT_GAIN: tl.constexpr,
    X_DENSE: tl.constexpr, P_DENSE: tl.constexpr, Y_DENSE: tl.constexpr,
    WIDE: tl.constexpr, WORK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    row, chunk = part_of(chunks, WIDE, ROWS)
    columns = multiple(columns, ALIGN)
    extent = multiple(extent, ALIGN)
    wide_row = row.to(tl.int64)[:, None]
    x += wide_row * multiple(x_batch, ALIGN)
    raw += wide_row * multiple(p_batch, ALIGN)
    y += wide_row * multiple(y_batch, ALIGN)
    live = (row < rows)[:, None]
    sums = tl.zeros([ROWS, COLUMNS], WORK)
    for step in range(chunk * steps, (chunk + 1) * steps):
        column = columns_of(step, COLUMNS, WIDE)
        mask = live & (column < columns)
        p_at = offsets(column, extent, multiple(p_outer, ALIGN), p_inner, P_DENSE)
        y_at = offsets(column, extent, multiple(y_outer, ALIGN), y_inner, Y_DENSE)
        value = load(x, column, mask, extent, x_outer, x_inner, X_DENSE, WORK, ALIGN)
        shift = tl.load(raw + (p_at + multiple(t_start, ALIGN)), mask=mask, other=0.0).to(WORK) * SHIFT_GAIN
        if MAP == 0:
            value = value + shift
        else:
            a = tl.load(raw + (p_at + multiple(a_start, ALIGN)), mask=mask, other=0.0).to(WORK)
            log_s, s, _ = scale_terms(a, MAP, NEGATE, CLAMP, OFFSET, EPS, GAIN)
            sums += tl.where(mask, log_s, 0.0)
            if BEFORE:
                value = (value + shift) * s
            else:
                value = value * s + shift
        tl.store(y + y_at, value.to(y.dtype.element_ty), mask=mask)
    if new_log_det is not None:
        own = tl.sum(sums, axis=1).to(new_log_det.dtype.element_ty)
        if log_det is not None:
            own += tl.load(log_det + row.to(tl.int64) * log_det_stride, mask=row < rows).to(own.dtype)
        tl.store(new_log_det + row.to(tl.int64) * chunks + chunk, own, mask=row < rows)


@triton.jit
def backward_kernel(
    known, raw, grad_y, grad_log_det, grad_x, grad_params, recovered, rows, columns, extent, steps, chunks,
    x_batch, x_outer, x_inner, p_batch, p_outer, p_inner, gy_batch, gy_outer, gy_inner,
    gx_batch, gx_outer, gx_inner, gp_batch, gp_outer, gp_inner,
    a_start, t_start, ga_start, gt_start, log_det_stride,
    MAP: tl.constexpr, NEGATE: tl.constexpr, BEFORE: tl.constexpr, CLAMP: tl.constexpr, OFFSET: tl.constexpr,
    EPS: tl.constexpr, GAIN: tl.constexpr, SHIFT_GAIN: tl.constexpr, KNOWN: tl.constexpr,
    X_DENSE: tl.constexpr, P_DENSE: tl.constexpr,
    GY_DENSE: tl.constexpr, GX_DENSE: tl.constexpr, GP_DENSE: tl.constexpr,
    WIDE: tl.constexpr, WORK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    row, chunk = part_of(chunks, WIDE, ROWS)
    columns = multiple(columns, ALIGN)
    extent = multiple(extent, ALIGN)
    wide_row = row.to(tl.int64)[:, None]
    known += wide_row * multiple(x_batch, ALIGN)
    raw += wide_row * multiple(p_batch, ALIGN)
    grad_x += wide_row * multiple(gx_batch, ALIGN)
    grad_params += wide_row * multiple(gp_batch, ALIGN)
    if grad_y is not None:
        grad_y += wide_row * multiple(gy_batch, ALIGN)
    if KNOWN == RECOVER:
        recovered += wide_row * multiple(gx_batch, ALIGN)
    live = (row < rows)[:, None]
    grad_own = tl.zeros([ROWS, 1], WORK)
    if grad_log_det is not None:
        grad_own = tl.load(grad_log_det + wide_row * log_det_stride, mask=live, other=0.0).to(WORK)
    for step in range(chunk * steps, (chunk + 1) * steps):
        column = columns_of(step, COLUMNS, WIDE)
        mask = live & (column < columns)
        p_at = offsets(column, extent, multiple(p_outer, ALIGN), p_inner, P_DENSE)
        gx_at = offsets(column, extent, multiple(gx_outer, ALIGN), gx_inner, GX_DENSE)
        gp_at = offsets(column, extent, multiple(gp_outer, ALIGN), gp_inner, GP_DENSE)
        if grad_y is not None:
            gy = load(grad_y, column, mask, extent, gy_outer, gy_inner, GY_DENSE, WORK, ALIGN)
        else:
            gy = tl.zeros([ROWS, COLUMNS], WORK)
        if MAP != 0 or KNOWN == RECOVER:
            value = load(known, column, mask, extent, x_outer, x_inner, X_DENSE, WORK, ALIGN)
        # dy/da = dL/da times x*S or (x + T)*S, which is y where the shift comes first: only the other case needs T
        if KNOWN == RECOVER or (MAP != 0 and (KNOWN == INPUT) == BEFORE):
            shift = tl.load(raw + (p_at + multiple(t_start, ALIGN)), mask=mask, other=0.0).to(WORK) * SHIFT_GAIN
        if MAP == 0:
            gx = gy
            gt = gy * SHIFT_GAIN
            if KNOWN == RECOVER:
                value = value - shift
        else:
            a = tl.load(raw + (p_at + multiple(a_start, ALIGN)), mask=mask, other=0.0).to(WORK)
            _, s, slope = scale_terms(a, MAP, NEGATE, CLAMP, OFFSET, EPS, GAIN)
            gx = gy * s
            if BEFORE:
                gt = gx * SHIFT_GAIN
                if KNOWN == INPUT:
                    scaled = (value + shift) * s
                else:
                    scaled = value
                    if KNOWN == RECOVER:
                        value = value / s - shift
            else:
                gt = gy * SHIFT_GAIN
                if KNOWN == INPUT:
                    scaled = value * s
                else:
                    scaled = value - shift
                    if KNOWN == RECOVER:
                        value = scaled / s
            ga = (gy * scaled + grad_own) * slope
            ga_at = gp_at + multiple(ga_start, ALIGN)
            tl.store(grad_params + ga_at, ga.to(grad_params.dtype.element_ty), mask=mask)
        tl.store(grad_x + gx_at, gx.to(grad_x.dtype.element_ty), mask=mask)
        tl.store(grad_params + (gp_at + multiple(gt_start, ALIGN)), gt.to(grad_params.dtype.element_ty), mask=mask)
        if KNOWN == RECOVER:
            tl.store(recovered + gx_at, value.to(recovered.dtype.element_ty), mask=mask)


def _halves(params: Tensor, spec: Spec, order: Order) -> tuple[Operand, int, int]:
    """The parameters as one operand, and where scale and shift start in it."""
    channel = params.stride(1)
    if not spec.has_scale:
        return operand(params, order), 0, 0
    if spec.layout >= 2:
        first_is_shift = spec.layout == 2
        return operand(params, order, step=2), channel * first_is_shift, channel * (not first_is_shift)
    half = channel * order.channels
    return operand(params, order), (0 if spec.layout == 0 else half), (half if spec.layout == 0 else 0)


def _constants(spec: Spec) -> dict[str, Any]:
    return {
        "MAP": spec.scale_map,
        "NEGATE": spec.negate,
        "BEFORE": spec.before,
        "CLAMP": spec.clamp,
        "OFFSET": spec.offset,
        "EPS": spec.eps,
        "GAIN": spec.gain,
        "SHIFT_GAIN": spec.shift_gain,
    }


def forward(x: Tensor, params: Tensor, log_det: Tensor | None, *form: Any) -> tuple[Tensor, Tensor]:
    """``affine_coupling_forward``: see ``hybridkern/ops/affine_coupling.py``."""
    spec = spec_of(*form)
    out = Output(torch.empty_like(x))
    own = total_dtype(x)
    dtype = own if log_det is None else torch.promote_types(own, log_det.dtype)
    x, params = foldable(x), foldable(params)
    order = order_of(x)
    counts = spec.has_scale and x.numel() > 0
    if counts:
        new_log_det = torch.empty((order.rows,), dtype=dtype, device=x.device)
    else:
        new_log_det = x.new_zeros((order.rows,), dtype=dtype) if log_det is None else log_det.to(dtype, copy=True)
    if x.numel() == 0:
        return out.finish(), new_log_det
    xo, yo = operand(x, order), operand(out.tensor, order)
    po, *starts = _halves(params, spec, order)
    tile = tile_of(order.rows, order.columns, vector_of(x, params), spec.has_scale)
    given, written = (log_det, new_log_det) if counts else (None, None)
    several = counts and tile.chunks > 1
    if several:  # the log-determinant given is added with the sums of the chunks
        given, written = None, torch.empty((order.rows, tile.chunks), dtype=own, device=x.device)
    launch_tiles(
        forward_kernel, tile, order, (x, params, given, out.tensor, written), {"X": xo, "P": po, "Y": yo},
        starts, (0 if given is None else given.stride(0),), **_constants(spec),
    )  # fmt: skip
    if several:
        assert written is not None
        row_sums(written, log_det, new_log_det)
    return out.finish(), new_log_det


def _gradients(
    known: Tensor, params: Tensor, grad_y: Tensor | None, grad_log_det: Tensor | None, kind: int, *form: Any
) -> tuple[Tensor | None, Tensor, Tensor]:
    spec = spec_of(*form)
    grad_x, grad_params = Output(torch.empty_like(known)), Output(torch.empty_like(params))
    recovered = Output(torch.empty_like(known)) if kind == _RECOVER else None
    if known.numel() > 0:
        known, params = foldable(known), foldable(params)
        order = order_of(known)
        grad_y = None if grad_y is None else foldable(grad_y)
        xo, gxo = operand(known, order), operand(grad_x.tensor, order)
        po, *starts = _halves(params, spec, order)
        gpo, *grad_starts = _halves(grad_params.tensor, spec, order)
        gyo = gxo if grad_y is None else operand(grad_y, order)
        tile = tile_of(order.rows, order.columns, vector_of(known, params), False)
        back = None if recovered is None else recovered.tensor
        launch_tiles(
            backward_kernel, tile, order,
            (known, params, grad_y, grad_log_det if spec.has_scale else None, grad_x.tensor, grad_params.tensor, back),
            {"X": xo, "P": po, "GY": gyo, "GX": gxo, "GP": gpo}, (*starts, *grad_starts),
            (0 if grad_log_det is None else grad_log_det.stride(0),), KNOWN=kind, **_constants(spec),
        )  # fmt: skip
    return None if recovered is None else recovered.finish(), grad_x.finish(), grad_params.finish()


def backward(
    known: Tensor, params: Tensor, grad_y: Tensor | None, grad_log_det: Tensor | None, *form: Any, **named: Any
) -> tuple[Tensor, Tensor]:
    """``affine_coupling_backward``: gradients in ``x`` and ``params``, from the input or the output."""
    numbers, rest = form[:2], form[2:]
    known_is_output = named.get("known_is_output", rest[0] if rest else False)
    kind = _OUTPUT if known_is_output else _INPUT
    _, grad_x, grad_params = _gradients(known, params, grad_y, grad_log_det, kind, *numbers)
    return grad_x, grad_params


def backward_from_output(
    y: Tensor, params: Tensor, grad_y: Tensor | None, grad_log_det: Tensor | None, *form: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """``affine_coupling_backward_from_output``: ``x`` recovered beside the gradients."""
    x, grad_x, grad_params = _gradients(y, params, grad_y, grad_log_det, _RECOVER, *form)
    assert x is not None
    return x, grad_x, grad_params


OPERATORS = {
    "affine_coupling_forward": forward,
    "affine_coupling_backward": backward,
    "affine_coupling_backward_from_output": backward_from_output,
}
