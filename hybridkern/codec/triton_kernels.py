"""One layer of a network of integers on a GPU: a convolution of 8-bit integers and what becomes of its sums."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _shifted(value, factor, shift):
    one = tl.full([1], 1, tl.int64)
    return (value * factor + (one << (shift - 1))) >> shift


@triton.jit
def layer_kernel(
    image, weights, biases, factors, shifts, table, residual, to, positions, height, width,
    border, offset, residual_factor, residual_shift,
    IN: tl.constexpr, OUT: tl.constexpr, KEPT: tl.constexpr, TAPS: tl.constexpr, ADDS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Sums of ``ROWS`` pixels and ``COLUMNS`` output channels, finished.

    ``image`` int8 ``(positions, IN)`` holds activations less 128, ``weights`` int8 ``(TAPS, IN, OUT)``. ``biases``,
    ``factors`` and ``shifts`` are int64 ``(OUT,)``; ``residual`` int16 ``(positions, OUT)`` or none. Without ``table``,
    int8 of 256, the layer is the last: ``to`` is int32 ``(B, KEPT, height, width)``, else int8 ``(positions, OUT)``.
    """
    program = tl.program_id(0)
    blocks: tl.constexpr = OUT // COLUMNS
    column = (program % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    position = (program // blocks) * ROWS + tl.arange(0, ROWS)
    live = position < positions
    y = position // width % height
    x = position % width
    total = tl.zeros([ROWS, COLUMNS], tl.int32)
    parts: tl.constexpr = IN // DEPTH
    for step in range(0, TAPS * parts):
        tap = step // parts
        down = tap // 3 - 1 if TAPS == 9 else 0
        right = tap % 3 - 1 if TAPS == 9 else 0
        inside = live & (y + down >= 0) & (y + down < height) & (x + right >= 0) & (x + right < width)
        depth = (step % parts) * DEPTH + tl.arange(0, DEPTH)
        start = (position + down * width + right).to(tl.int64) * IN
        a = tl.load(image + (start[:, None] + depth[None, :]), mask=inside[:, None], other=0)
        a = tl.where(inside[:, None], a, border).to(tl.int8)
        b = tl.load(weights + ((tap * IN + depth)[:, None] * OUT + column[None, :]))
        total = tl.dot(a, b, total, out_dtype=tl.int32)
    value = total.to(tl.int64) + tl.load(biases + column)[None, :]
    value = _shifted(value, tl.load(factors + column)[None, :], tl.load(shifts + column)[None, :])
    value = tl.minimum(tl.maximum(value, -1073741824), 1073741824)
    mask = live[:, None]
    if table is None:
        area = height * width
        at = (position // area).to(tl.int64)[:, None] * (KEPT * area) + column[None, :] * area
        tl.store(to + (at + (position % area)[:, None]), value.to(tl.int32), mask=mask & (column < KEPT)[None, :])
    else:
        at = position.to(tl.int64)[:, None] * OUT + column[None, :]
        if residual is not None:
            if ADDS:
                value += tl.load(residual + at, mask=mask, other=0).to(tl.int64)
            value = tl.minimum(tl.maximum(value, -32768), 32767)
            tl.store(residual + at, value.to(tl.int16), mask=mask)
            value = _shifted(value, residual_factor, residual_shift)
        index = tl.minimum(tl.maximum(value + offset, 0), 255).to(tl.int32)
        tl.store(to + at, tl.load(table + index), mask=mask)
