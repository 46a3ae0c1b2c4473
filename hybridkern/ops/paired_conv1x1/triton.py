"""1x1 convolution over two halves: kernels and launchers of the operators ``paired_conv1x1_*``.

The gradient in the input is the product with the transposed matrix. Where one tile holds the matrix, its gradient is
summed in the same pass: every program leaves the sum over its positions, and a second launch adds those in order.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybridkern.ops._triton.launch import launch, work_of
from hybridkern.ops._triton.layout import Output, foldable, multiple
from hybridkern.ops._triton.pair import Half, alignments, half_of, load_pair, needs_wide, position_of, store_pair
from hybridkern.ops._triton.pair_tiles import HELD, gradient_tile, mix_tile
from hybridkern.ops._triton.reduce import split_sums


@triton.jit
def _matrix(weight, row, column, row_stride, column_stride, CHANNELS: tl.constexpr):
    if CHANNELS > 46340:  # whose square passes 2^31
        row = row.to(tl.int64)
        column = column.to(tl.int64)
    at = row * row_stride + column * column_stride
    return tl.load(weight + at, mask=(row < CHANNELS) & (column < CHANNELS), other=0.0)


@triton.jit
def _product(a, b, total):
    return tl.dot(a, b, total, input_precision="ieee", out_dtype=total.dtype)


@triton.jit
def mix_kernel(
    first,
    second,
    weight,
    bias,
    to_first,
    to_second,
    positions,
    pixels,
    steps,
    blocks,
    f_batch,
    f_channel,
    f_pixel,
    s_batch,
    s_channel,
    s_pixel,
    tf_batch,
    tf_channel,
    tf_pixel,
    ts_batch,
    ts_channel,
    ts_pixel,
    row_stride,
    column_stride,
    HALF: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    TO_FIRST: tl.constexpr,
    TO_SECOND: tl.constexpr,
    HELD: tl.constexpr,
    WIDE: tl.constexpr,
    WORK: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    POSITIONS: tl.constexpr,
    ALIGN: tl.constexpr,
    RUN: tl.constexpr,
):
    program = tl.program_id(0)
    to = (program % blocks) * OUTPUTS + tl.arange(0, OUTPUTS)[:, None]
    group = program // blocks
    positions = multiple(positions, RUN)
    pixels = multiple(pixels, RUN)
    channels: tl.constexpr = 2 * HALF
    inputs = tl.arange(0, INPUTS)
    if HELD:
        matrix = _matrix(weight, to, inputs[None, :], row_stride, column_stride, channels)
    start = tl.zeros([OUTPUTS, 1], WORK)
    if bias is not None:
        start += tl.load(bias + to, mask=to < channels, other=0.0)
    for step in range(group * steps, (group + 1) * steps):
        at = position_of(step, POSITIONS, WIDE)
        live = at < positions
        total = tl.zeros([OUTPUTS, POSITIONS], WORK) + start
        for block in range(0, channels, INPUTS):
            if not HELD:
                matrix = _matrix(weight, to, block + inputs[None, :], row_stride, column_stride, channels)
            x = load_pair(
                first, second, block + inputs[:, None], at, live, pixels,
                f_batch, f_channel, f_pixel, s_batch, s_channel, s_pixel, HALF, FIRST, SECOND, WORK, ALIGN,
            )  # fmt: skip
            total = _product(matrix, x, total)
        store_pair(
            total, to_first, to_second, to, at, live, pixels,
            tf_batch, tf_channel, tf_pixel, ts_batch, ts_channel, ts_pixel, HALF, TO_FIRST, TO_SECOND, ALIGN,
        )  # fmt: skip


@triton.jit
def gradient_kernel(
    grad_first,
    grad_second,
    first,
    second,
    weight,
    to_first,
    to_second,
    partial,
    positions,
    pixels,
    steps,
    blocks,
    gf_batch,
    gf_channel,
    gf_pixel,
    gs_batch,
    gs_channel,
    gs_pixel,
    f_batch,
    f_channel,
    f_pixel,
    s_batch,
    s_channel,
    s_pixel,
    tf_batch,
    tf_channel,
    tf_pixel,
    ts_batch,
    ts_channel,
    ts_pixel,
    HALF: tl.constexpr,
    GRAD_FIRST: tl.constexpr,
    GRAD_SECOND: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    TO_FIRST: tl.constexpr,
    TO_SECOND: tl.constexpr,
    HELD: tl.constexpr,
    WIDE: tl.constexpr,
    WORK: tl.constexpr,
    SIZE: tl.constexpr,
    POSITIONS: tl.constexpr,
    ALIGN: tl.constexpr,
    RUN: tl.constexpr,
):
    # A program sums one block of the matrix's gradient over its positions. Where one block is all, HELD, it also
    # multiplies with the transposed matrix.
    program = tl.program_id(0)
    index = tl.arange(0, SIZE)
    row = (program % blocks) * SIZE + index
    column = (program // blocks % blocks) * SIZE + index
    group = program // (blocks * blocks)
    positions = multiple(positions, RUN)
    pixels = multiple(pixels, RUN)
    channels: tl.constexpr = 2 * HALF
    if HELD:
        transposed = _matrix(weight, index[:, None], index[None, :], 1, channels, channels)
    sums = tl.zeros([SIZE, SIZE], WORK)
    bias_sums = tl.zeros([SIZE], WORK)
    for step in range(group * steps, (group + 1) * steps):
        at = position_of(step, POSITIONS, WIDE)
        live = at < positions
        g = load_pair(
            grad_first, grad_second, row[:, None], at, live, pixels,
            gf_batch, gf_channel, gf_pixel, gs_batch, gs_channel, gs_pixel,
            HALF, GRAD_FIRST, GRAD_SECOND, WORK, ALIGN,
        )  # fmt: skip
        bias_sums += tl.sum(g, axis=1)
        if HELD:
            own = _product(transposed, g, tl.zeros([SIZE, POSITIONS], WORK))
            store_pair(
                own, to_first, to_second, row[:, None], at, live, pixels,
                tf_batch, tf_channel, tf_pixel, ts_batch, ts_channel, ts_pixel, HALF, TO_FIRST, TO_SECOND, ALIGN,
            )  # fmt: skip
        x = load_pair(
            first, second, column[:, None], at, live, pixels,
            f_batch, f_channel, f_pixel, s_batch, s_channel, s_pixel, HALF, FIRST, SECOND, WORK, ALIGN,
        )  # fmt: skip
        tl.debug_barrier()
        sums = _product(g, tl.trans(x), sums)
    partial += group.to(tl.int64) * (channels * channels + channels)
    if channels > 46340:
        row = row.to(tl.int64)
    inside = (row < channels)[:, None] & (column < channels)[None, :]
    tl.store(partial + (row[:, None] * channels + column[None, :]), sums, mask=inside)
    last = tl.where(program // blocks % blocks == 0, channels, 0)  # every column would give the same
    tl.store(partial + channels * channels + row, bias_sums, mask=row < last)


def _strides(*halves: Half) -> tuple[int, ...]:
    return tuple(stride for half in halves for stride in half.strides)


def _mix(
    first: Tensor, second: Tensor, weight: Tensor, bias: Tensor | None, outs: tuple[Tensor, Tensor], transposed: bool
) -> None:
    """``outs = weight x + bias``, with the transposed matrix where asked for."""
    halves = [half_of(value) for value in (first, second, *outs)]
    half, pixels = first.shape[1], math.prod(first.shape[2:])
    positions = first.shape[0] * pixels
    tile = mix_tile(2 * half, positions)
    blocks = -(-2 * half // tile.outputs)
    align, run = alignments(positions, pixels, halves)
    strides = (1, 2 * half) if transposed else (2 * half, 1)
    launch(
        mix_kernel,
        tile.programs * blocks,
        first,
        *(first, second, weight, bias, *outs),
        *(positions, pixels, tile.steps, blocks),
        *(*_strides(*halves), *strides),
        HALF=half,
        **_kinds(("FIRST", "SECOND", "TO_FIRST", "TO_SECOND"), halves),
        HELD=2 * half <= HELD,
        WIDE=needs_wide(tile, half, halves),
        WORK=work_of(first),
        OUTPUTS=tile.outputs,
        INPUTS=tile.inputs,
        POSITIONS=tile.positions,
        ALIGN=align,
        RUN=run,
        num_warps=tile.warps,
        num_stages=1,
    )


def _kinds(names: tuple[str, ...], halves: list[Half]) -> dict[str, int]:
    return {name: half.kind for name, half in zip(names, halves, strict=True)}


def forward(first: Tensor, second: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """``paired_conv1x1_forward``: see ``hybridkern/ops/paired_conv1x1.py``."""
    outs = Output(torch.empty_like(first)), Output(torch.empty_like(second))
    if first.numel() > 0:
        # the kernels read a matrix row by row without gaps
        bias = None if bias is None else bias.contiguous()
        _mix(foldable(first), foldable(second), weight.contiguous(), bias, (outs[0].tensor, outs[1].tensor), False)
    return outs[0].finish(), outs[1].finish()


def backward(
    grad_first: Tensor, grad_second: Tensor, first: Tensor, second: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``paired_conv1x1_backward``: gradients in both halves, the matrix and the offset."""
    outs = Output(torch.empty_like(first)), Output(torch.empty_like(second))
    weight = weight.contiguous()
    grad_weight, grad_bias = torch.empty_like(weight), weight.new_empty(len(weight))
    if first.numel() == 0:
        return outs[0].finish(), outs[1].finish(), grad_weight.zero_(), grad_bias.zero_()
    values = [foldable(value) for value in (grad_first, grad_second, first, second)]
    targets = outs[0].tensor, outs[1].tensor
    halves = [half_of(value) for value in (*values, *targets)]
    half, pixels = first.shape[1], math.prod(first.shape[2:])
    positions = first.shape[0] * pixels
    tile = gradient_tile(2 * half, positions)
    blocks = -(-2 * half // tile.outputs)
    partial = weight.new_empty((tile.programs, weight.numel() + len(weight)))
    align, run = alignments(positions, pixels, halves)
    launch(
        gradient_kernel,
        tile.programs * blocks * blocks,
        first,
        *(*values, weight, *targets, partial),
        *(positions, pixels, tile.steps, blocks),
        *_strides(*halves),
        HALF=half,
        **_kinds(("GRAD_FIRST", "GRAD_SECOND", "FIRST", "SECOND", "TO_FIRST", "TO_SECOND"), halves),
        HELD=2 * half <= HELD,
        WIDE=needs_wide(tile, half, halves),
        WORK=work_of(first),
        SIZE=tile.outputs,
        POSITIONS=tile.positions,
        ALIGN=align,
        RUN=run,
        num_warps=tile.warps,
        num_stages=1,
    )
    if 2 * half > HELD:
        _mix(values[0], values[1], weight, None, targets, True)
    split_sums(partial, grad_weight, grad_bias)
    return outs[0].finish(), outs[1].finish(), grad_weight, grad_bias


OPERATORS = {"paired_conv1x1_forward": forward, "paired_conv1x1_backward": backward}
