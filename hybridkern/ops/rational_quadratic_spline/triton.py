"""The rational-quadratic spline: launchers of ``rational_quadratic_spline_*``."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from hybridkern._tensors import total_dtype
from hybridkern.ops._triton.density import is_shared
from hybridkern.ops._triton.launch import launch_tiles
from hybridkern.ops._triton.layout import Operand, Order, Output, foldable, operand, order_of
from hybridkern.ops._triton.reduce import column_sums, row_sums
from hybridkern.ops._triton.tiles import batch_tile_of, power_of_two, tile_of
from hybridkern.ops.rational_quadratic_spline.form import Spline, decoded
from hybridkern.ops.rational_quadratic_spline.triton_kernels import backward_kernel, forward_kernel

_EACH = 4  # numbers that a thread holds of each array


def _constants(s: Spline, x: Tensor) -> dict[str, Any]:
    return {
        "BINS": s.bins,
        "PADDED": power_of_two(s.bins),
        "KNOTS": s.derivatives,
        "PADDED_KNOTS": power_of_two(s.derivatives),
        "TIED": s.derivatives == s.bins,
        "FIXED": int(s.derivatives == s.bins - 1),
        "WRAPS": s.wraps,
        "ZUKO": s.is_zuko,
        "INVERSE": s.inverse,
        "LOW": s.low,
        "HIGH": s.high,
        "MIDDLE": 0.5 * (s.low + s.high),
        "RANGE": s.high - s.low,
        "SHARE_W": 1 - s.bins * s.min_width,
        "SHARE_H": 1 - s.bins * s.min_height,
        "FLOOR_W": s.min_width,
        "FLOOR_H": s.min_height,
        "LEAST": s.least,
        "GAIN": s.gain,
        "BETA": s.beta,
        "INVERSE_CLIP": -1 / math.log(s.least) if s.is_zuko else 0.0,
        "WHOLE": 1 << (60 if x.dtype is torch.float64 else 30),
    }


def _components(params: Tensor, x: Tensor, order: Order, count: int) -> Operand:
    """Raw parameters as ``(B, count, C, *S)``, as they lie."""
    view = params.movedim(-1, 1) if x.ndim == 2 else params.unflatten(1, (x.shape[1], count)).movedim(2, 1)
    return operand(view, order, 2)


def forward(x: Tensor, params: Tensor, log_det: Tensor | None, code: int, *numbers: float) -> tuple[Tensor, Tensor]:
    """``rational_quadratic_spline_forward``: see ``hybridkern/ops/rational_quadratic_spline/operator.py``."""
    spline = decoded(code, *numbers)
    out, own = Output(torch.empty_like(x)), total_dtype(x)
    dtype = own if log_det is None else torch.promote_types(own, log_det.dtype)
    if x.numel() == 0:
        empty = x.new_zeros((x.shape[0],), dtype=dtype) if log_det is None else log_det.to(dtype, copy=True)
        return out.finish(), empty
    total = torch.empty((x.shape[0],), dtype=dtype, device=x.device)
    x, params = foldable(x), foldable(params)
    order = order_of(x)
    tile = tile_of(order.rows, order.columns, _EACH, True, power_of_two(spline.bins), warps=1)
    several = tile.chunks > 1
    target = torch.empty((order.rows, tile.chunks), dtype=own, device=x.device) if several else total
    start = None if several else log_det
    operands = {
        "X": operand(x, order),
        "P": _components(params, x, order, spline.parameters),
        "Y": operand(out.tensor, order),
    }
    launch_tiles(
        forward_kernel, tile, order, (x, params, start, out.tensor, target), operands, (),
        (0 if start is None else start.stride(0),), **_constants(spline, x),
    )  # fmt: skip
    if several:
        row_sums(target, log_det, total)
    return out.finish(), total


def backward(
    x: Tensor, params: Tensor, grad_y: Tensor | None, grad_log_det: Tensor | None, code: int, *numbers: float
) -> tuple[Tensor, Tensor]:
    """``rational_quadratic_spline_backward``: gradients in ``x`` and the parameters."""
    spline = decoded(code, *numbers)
    grad_x, grad_params = Output(torch.empty_like(x)), Output(torch.empty_like(params))
    if x.numel() == 0:
        grad_params.tensor.zero_()
        return grad_x.finish(), grad_params.finish()
    shared, count = is_shared(params, x), spline.parameters
    x, params = foldable(x), foldable(params)
    grad_y = None if grad_y is None else foldable(grad_y)
    order = order_of(x)
    padded = power_of_two(spline.bins)
    if shared:
        tile = batch_tile_of(order.rows, order.columns, _EACH, padded, warps=1)
    else:
        tile = tile_of(order.rows, order.columns, _EACH, False, padded, warps=1)
    gxo, gpo = operand(grad_x.tensor, order), _components(grad_params.tensor, x, order, count)
    target = grad_params.tensor
    if shared:
        target = torch.empty((count, tile.chunks, order.columns), dtype=total_dtype(x), device=x.device)
    operands = {
        "X": operand(x, order),
        "P": _components(params, x, order, count),
        "GY": gxo if grad_y is None else operand(grad_y, order),
        "GX": gxo,
        "GP": gpo,
    }
    launch_tiles(
        backward_kernel, tile, order, (x, params, grad_y, grad_log_det, grad_x.tensor, target), operands, (),
        (0 if grad_log_det is None else grad_log_det.stride(0),), SHARED=shared, **_constants(spline, x),
    )  # fmt: skip
    if shared:
        for p in range(0, count, 3):  # as many as one launch sums
            outs = [_number(grad_params.tensor, x, count, number) for number in range(p, min(p + 3, count))]
            column_sums(target[p : p + 3], outs, order)
    return grad_x.finish(), grad_params.finish()


def _number(params: Tensor, x: Tensor, count: int, p: int) -> Tensor:
    """The ``p``-th number of every element, ``(1, C, *S)``."""
    return params[..., p] if x.ndim == 2 else params.unflatten(1, (x.shape[1], count))[:, :, p]


OPERATORS = {"rational_quadratic_spline_forward": forward, "rational_quadratic_spline_backward": backward}
