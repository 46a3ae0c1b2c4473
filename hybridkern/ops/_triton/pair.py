"""Pairs of halves as the matrix kernels see them: the channels of both, one after the other, times numbered positions.

Positions run through the pixels of one example after the other. Each half keeps its own strides; the one that is 1
decides which accesses are wide.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from hybridkern.ops._triton.layout import FAR, multiple
from hybridkern.ops._triton.pair_tiles import PairTile

_DENSE, _UNIT_CHANNEL, _UNIT_PIXEL = 1, 2, 4
DENSE, UNIT_CHANNEL, UNIT_PIXEL = tl.constexpr(_DENSE), tl.constexpr(_UNIT_CHANNEL), tl.constexpr(_UNIT_PIXEL)


class Half(NamedTuple):
    """A half ``(B, C/2, *S)`` and its strides in elements; ``kind`` says what a kernel may leave out."""

    tensor: Tensor
    batch: int
    channel: int
    pixel: int
    kind: int

    @property
    def strides(self) -> tuple[int, int, int]:
        """Of examples, channels and pixels."""
        return self.batch, self.channel, self.pixel


def half_of(value: Tensor) -> Half:
    """The half, whose spatial dims must fold into one stride."""
    rows, channels, pixels = value.shape[0], value.shape[1], math.prod(value.shape[2:])
    batch = value.stride(0)
    channel = value.stride(1) if channels > 1 else 0
    inner = [stride for size, stride in zip(value.shape[2:], value.stride()[2:], strict=True) if size != 1]
    pixel = inner[-1] if inner else batch
    dense = rows == 1 or pixels == 1 or batch == pixels * pixel
    unit = _UNIT_CHANNEL if channel == 1 else _UNIT_PIXEL if pixel == 1 else 0
    return Half(value, batch, channel, pixel, unit | (_DENSE if dense else 0))


def alignments(positions: int, pixels: int, halves: list[Half]) -> tuple[int, int]:
    """Powers of two, at most 16: one that divides all strides but those that are 1, and one for the positions."""
    strides = []
    for half in halves:
        strides += [] if half.kind & _DENSE else [half.batch]
        strides += [] if half.kind & _UNIT_CHANNEL else [half.channel]
        strides += [] if half.kind & _UNIT_PIXEL else [half.pixel]
    runs = [positions] + ([] if all(half.kind & _DENSE for half in halves) else [pixels])
    return math.gcd(16, *strides), math.gcd(16, *runs)


def needs_wide(tile: PairTile, channels: int, halves: list[Half]) -> bool:
    """Whether an offset, or the number of a position that a tile reaches, may pass 2^31."""
    return bool(max(tile.programs * tile.steps * tile.positions, *(_last(half, channels) for half in halves)) >= FAR)


def _last(half: Half, channels: int) -> int:
    shape = half.tensor.shape
    return shape[0] * half.batch + channels * half.channel + math.prod(shape[2:]) * half.pixel


@triton.jit
def position_of(tile, TILE: tl.constexpr, WIDE: tl.constexpr):
    """Numbers ``(1, TILE)`` of the positions of a tile."""
    if WIDE:
        tile = tile.to(tl.int64)
    return tile * TILE + tl.arange(0, TILE)[None, :]


@triton.jit
def _offsets(channel, position, pixels, batch, per_channel, per_pixel, KIND: tl.constexpr, ALIGN: tl.constexpr):
    if not (UNIT_CHANNEL & KIND):
        per_channel = multiple(per_channel, ALIGN)
    if not (UNIT_PIXEL & KIND):
        per_pixel = multiple(per_pixel, ALIGN)
    if DENSE & KIND:
        return channel * per_channel + position * per_pixel
    else:
        example = position // pixels
        within = position - example * pixels
        return channel * per_channel + (example * multiple(batch, ALIGN) + within * per_pixel)


@triton.jit
def load_pair(
    first, second, channel, position, live, pixels,
    first_batch, first_channel, first_pixel, second_batch, second_channel, second_pixel,
    HALF: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, WORK: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    """Channels ``(N, 1)`` of a pair at positions ``(1, M)``; 0 beyond the last channel and where not ``live``."""
    in_first = channel < HALF
    in_second = (channel >= HALF) & (channel < 2 * HALF)
    at = _offsets(channel, position, pixels, first_batch, first_channel, first_pixel, FIRST, ALIGN)
    upper = tl.load(first + at, mask=live & in_first, other=0.0)
    at = _offsets(channel - HALF, position, pixels, second_batch, second_channel, second_pixel, SECOND, ALIGN)
    lower = tl.load(second + at, mask=live & in_second, other=0.0)
    return tl.where(in_first, upper, lower).to(WORK)


@triton.jit
def store_pair(
    value, first, second, channel, position, live, pixels,
    first_batch, first_channel, first_pixel, second_batch, second_channel, second_pixel,
    HALF: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    """What :func:`load_pair` reads, written."""
    in_second = (channel >= HALF) & (channel < 2 * HALF)
    at = _offsets(channel, position, pixels, first_batch, first_channel, first_pixel, FIRST, ALIGN)
    tl.store(first + at, value.to(first.dtype.element_ty), mask=live & (channel < HALF))
    at = _offsets(channel - HALF, position, pixels, second_batch, second_channel, second_pixel, SECOND, ALIGN)
    tl.store(second + at, value.to(second.dtype.element_ty), mask=live & in_second)
