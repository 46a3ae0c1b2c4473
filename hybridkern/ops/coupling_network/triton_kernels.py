"""Coupling network as matrix products over pixels: the kernels around the products.

With ``P`` pixels in all, a 3x3 convolution is a product with a matrix of ``P`` rows that holds the nine neighbors of
each pixel (``spread``); or a product that gives nine numbers per pixel and channel, one for each neighbor it adds to,
and a sum of nine shifted images (``collect``). The first convolution, which has few inputs, is the former, and
the last, which has few outputs, is the latter; their gradients are the other one each.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _spread(
    image, to, sums, program, blocks, positions, height, width, batch, channel, row, column,
    CHANNELS: tl.constexpr, ROW: tl.constexpr, POSITIONS: tl.constexpr, COLUMNS: tl.constexpr, SUMS: tl.constexpr,
    APART: tl.constexpr,
):  # fmt: skip
    """Rows of ``to``: the neighbors of a pixel, row by row, each with its channels; zeros outside of the image."""
    group = program // blocks
    at = (program % blocks) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    position = group * POSITIONS + tl.arange(0, POSITIONS)[:, None]
    tap = at // CHANNELS
    own = at - tap * CHANNELS
    y = position // width % height + (tap // 3 - 1)
    x = position % width + (tap % 3 - 1)
    live = position < positions
    if APART:
        own = own.to(tl.int64)
        y = y.to(tl.int64)
        x = x.to(tl.int64)
    inside = live & (tap < 9) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    example = (position // (height * width)).to(tl.int64)
    value = tl.load(image + (example * batch + own * channel + y * row + x * column), mask=inside, other=0.0)
    tl.store(to + (position.to(tl.int64) * ROW + at), value.to(to.dtype.element_ty), mask=live & (at < ROW))
    if SUMS:  # of the pixels themselves, wide: the gradient of a bias
        total = tl.sum(value, axis=0)[None, :]
        tl.store(sums + (group.to(tl.int64) * CHANNELS + own), total, mask=tap == 4)


@triton.jit
def _pack(
    w1, w2, w3, to, at, a_out, a_in, a_row, a_column, m_out, m_in, c_out, c_in, c_row, c_column,
    CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, OUT: tl.constexpr,
    WIDE: tl.constexpr, ROW: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """Elements ``at`` of the matrices one after the other: (WIDE, ROW), (WIDE, WIDE) and (LAST, WIDE).

    WIDE, ROW and LAST are HIDDEN, 9 CHANNELS and 9 OUT, rounded up; what is beyond is zero.
    """
    first: tl.constexpr = WIDE * ROW
    second: tl.constexpr = first + WIDE * WIDE
    third: tl.constexpr = second + LAST * WIDE
    value = tl.zeros(at.shape, to.dtype.element_ty)
    if tl.min(at) < first:
        h = at // ROW
        tap = (at % ROW) // CHANNELS
        c = at % ROW - tap * CHANNELS
        live = (at < first) & (h < HIDDEN) & (tap < 9)
        own = tl.load(w1 + (h * a_out + c * a_in + tap // 3 * a_row + tap % 3 * a_column), mask=live, other=0.0)
        value += own.to(value.dtype)
    if (tl.max(at) >= first) & (tl.min(at) < second):
        h = (at - first) // WIDE
        c = (at - first) % WIDE
        live = (at >= first) & (h < HIDDEN) & (c < HIDDEN) & (at < second)
        value += tl.load(w2 + (h * m_out + c * m_in), mask=live, other=0.0).to(value.dtype)
    if (tl.max(at) >= second) & (tl.min(at) < third):
        h = (at - second) % WIDE
        tap = (at - second) // (WIDE * OUT)
        o = (at - second) // WIDE - tap * OUT
        turned = 8 - tap
        live = (at >= second) & (at < third) & (h < HIDDEN) & (tap < 9)
        from_ = w3 + (o * c_out + h * c_in + turned // 3 * c_row + turned % 3 * c_column)
        value += tl.load(from_, mask=live, other=0.0).to(value.dtype)
    tl.store(to + at, value, mask=at < third)


@triton.jit
def gather_kernel(
    x, grad, w1, w2, w3, x_to, grad_to, packed, sums, positions, height, width, x_programs, grad_programs,
    x_batch, x_channel, x_row, x_column, g_batch, g_channel, g_row, g_column,
    a_out, a_in, a_row, a_column, m_out, m_in, c_out, c_in, c_row, c_column,
    CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, OUT: tl.constexpr,
    WIDE: tl.constexpr, ROW: tl.constexpr, LAST: tl.constexpr,
    APART: tl.constexpr, POSITIONS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """In one launch: the neighbors of ``x``, those of ``grad`` where there is one, and the matrices of the weights."""
    program = tl.program_id(0)
    if program < x_programs:
        _spread(
            x, x_to, sums, program, tl.cdiv(ROW, COLUMNS), positions, height, width,
            x_batch, x_channel, x_row, x_column, CHANNELS, ROW, POSITIONS, COLUMNS, False, APART,
        )  # fmt: skip
    elif program < x_programs + grad_programs:
        if grad is not None:
            _spread(
                grad, grad_to, sums, program - x_programs, tl.cdiv(LAST, COLUMNS), positions, height, width,
                g_batch, g_channel, g_row, g_column, OUT, LAST, POSITIONS, COLUMNS, True, APART,
            )  # fmt: skip
    else:
        block = program - x_programs - grad_programs
        if APART:
            block = block.to(tl.int64)
        at = block * BLOCK + tl.arange(0, BLOCK)
        _pack(
            w1, w2, w3, packed, at, a_out, a_in, a_row, a_column, m_out, m_in, c_out, c_in, c_row, c_column,
            CHANNELS, HIDDEN, OUT, WIDE, ROW, LAST,
        )  # fmt: skip


@triton.jit
def collect_kernel(
    parts, bias, out, positions, height, width,
    CHANNELS: tl.constexpr, ROW: tl.constexpr, POSITIONS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """``out (P, CHANNELS)``: each pixel's sum of what the nine pixels around it give to it, and the bias."""
    program = tl.program_id(0)
    blocks = tl.cdiv(CHANNELS, COLUMNS)
    at = (program % blocks) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    position = (program // blocks) * POSITIONS + tl.arange(0, POSITIONS)[:, None]
    y = position // width % height
    x = position % width
    live = (position < positions) & (at < CHANNELS)
    total = tl.zeros([POSITIONS, COLUMNS], out.dtype.element_ty)
    for tap in tl.static_range(9):
        up = tap // 3 - 1
        left = tap % 3 - 1
        inside = live & (y >= up) & (y < height + up) & (x >= left) & (x < width + left)
        from_ = (position - up * width - left).to(tl.int64) * ROW + tap * CHANNELS + at
        total += tl.load(parts + from_, mask=inside, other=0.0).to(total.dtype)
    if bias is not None:
        total += tl.load(bias + at, mask=at < CHANNELS, other=0.0)
    tl.store(out + (position.to(tl.int64) * CHANNELS + at), total, mask=live)


@triton.jit
def product_kernel(
    a, b, bias, hidden, out, sums, positions, depth, a_row, b_row, b_column,
    HIDDEN: tl.constexpr, WIDE: tl.constexpr, WORK: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """A hidden layer or its gradient, ``(P, WIDE)``: ``relu(a b + bias)``; or, where there is ``hidden``,
    ``(a b) * (hidden > 0)``, and for each group of rows the sums over its rows, wide.
    """
    program = tl.program_id(0)
    blocks: tl.constexpr = WIDE // COLUMNS
    group = program // blocks
    column = (program % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    position = group * ROWS + tl.arange(0, ROWS)
    live = position < positions
    start = position.to(tl.int64)
    total = tl.zeros([ROWS, COLUMNS], WORK)
    for step in range(0, depth, DEPTH):
        inner = step + tl.arange(0, DEPTH)
        left = tl.load(
            a + (start[:, None] * a_row + inner[None, :]), mask=live[:, None] & (inner < depth)[None, :], other=0.0
        )
        right = tl.load(
            b + (inner[:, None] * b_row + column[None, :] * b_column), mask=(inner < depth)[:, None], other=0.0
        )
        total = tl.dot(left, right, total, input_precision="ieee", out_dtype=WORK)
    at = start[:, None] * WIDE + column[None, :]
    if hidden is not None:
        total = tl.where(tl.load(hidden + at, mask=live[:, None], other=0.0) > 0, total, 0.0)
        tl.store(sums + (group.to(tl.int64) * WIDE + column), tl.sum(total, axis=0))
    else:
        total += tl.load(bias + column, mask=column < HIDDEN, other=0.0)[None, :]
        total = tl.where(total < 0, 0.0, total)  # NaN stays
    tl.store(out + at, total.to(out.dtype.element_ty), mask=live[:, None])


@triton.jit
def _sum_columns(sums, to, rows, width, stride, program, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    column = program * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([ROWS, COLUMNS], to.dtype.element_ty)
    for first in range(0, rows, ROWS):
        row = first + tl.arange(0, ROWS)
        mask = (row < rows)[:, None] & (column < width)[None, :]
        total += tl.load(sums + (row.to(tl.int64)[:, None] * stride + column[None, :]), mask=mask, other=0.0)
    tl.store(to + column, tl.sum(total, axis=0), mask=column < width)


@triton.jit
def unpack_kernel(
    first, last, sums1, sums2, sums3, w1, b1, b2, w3, b3, groups, image_groups, w1_programs, w3_programs, b_programs,
    a_out, a_in, a_row, a_column, c_out, c_in, c_row, c_column,
    CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, OUT: tl.constexpr,
    WIDE: tl.constexpr, ROW: tl.constexpr, LAST: tl.constexpr,
    APART: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The gradients of two weights in the layout of their parameters, and those of three biases from partial sums."""
    program = tl.program_id(0)
    if APART:
        program = program.to(tl.int64)
    if program < w1_programs:
        at = program * BLOCK + tl.arange(0, BLOCK)
        h = at // (9 * CHANNELS)
        c = at // 9 % CHANNELS
        live = at < HIDDEN * CHANNELS * 9
        tap = at % 9
        value = tl.load(first + (h * ROW + tap * CHANNELS + c), mask=live)
        place = h * a_out + c * a_in + tap // 3 * a_row + tap % 3 * a_column
        tl.store(w1 + place, value.to(w1.dtype.element_ty), mask=live)
    elif program < w1_programs + w3_programs:
        at = (program - w1_programs) * BLOCK + tl.arange(0, BLOCK)
        o = at // (9 * HIDDEN)
        h = at // 9 % HIDDEN
        live = at < OUT * HIDDEN * 9
        tap = at % 9
        value = tl.load(last + (((8 - tap) * OUT + o) * WIDE + h), mask=live)
        place = o * c_out + h * c_in + tap // 3 * c_row + tap % 3 * c_column
        tl.store(w3 + place, value.to(w3.dtype.element_ty), mask=live)
    else:
        rest = program - w1_programs - w3_programs
        if rest < b_programs:
            _sum_columns(sums1, b1, groups, HIDDEN, WIDE, rest, ROWS, COLUMNS)
        elif rest < 2 * b_programs:
            _sum_columns(sums2, b2, groups, HIDDEN, WIDE, rest - b_programs, ROWS, COLUMNS)
        else:
            _sum_columns(sums3, b3, image_groups, OUT, OUT, rest - 2 * b_programs, ROWS, COLUMNS)
