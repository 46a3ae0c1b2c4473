"""Tiles of the matrix kernels, by channels: a table with its reasons, the same on every device.

All outputs of a position are summed at once, so that the halves are read once. Threads hold 4 to 8 sums, so that with
operands and addresses half the threads of a multiprocessor find registers; tiles stay below 40 KiB of shared memory for
the same reason. Up to ``HELD`` channels a program holds the matrix while it walks over its positions; beyond, it reads
it block by block from the cache: there the products, not the bytes, are the limit, since float32 is multiplied as
float32 (tensor cores would round it). A program works on one tile as long as all fit on a large GPU at once: it then
reads the matrix, or leaves partial sums, more often, but small images would otherwise run on a few multiprocessors.
"""

from __future__ import annotations

from typing import NamedTuple

from hybridkern.ops._triton.tiles import power_of_two

HELD = 64  # channels up to which the matrix is held
FULL = 1056  # programs of eight warps that fill a large GPU: 8 on each of 132 multiprocessors


class PairTile(NamedTuple):
    """Channels it gives and takes at a time, positions at a time; tiles and programs; warps."""

    outputs: int
    inputs: int
    positions: int
    steps: int
    programs: int
    warps: int


# outputs or size of a block -> positions, warps, inputs at a time
_MIX = {16: (64, 8, 16), 32: (64, 8, 32), 64: (32, 16, 64), 128: (32, 16, 32), 256: (16, 16, 32)}
_GRADIENT = {16: (64, 8), 32: (64, 8), 64: (32, 16)}


def _divided(positions: int, wide: int) -> tuple[int, int]:
    tiles = -(-positions // wide)
    steps = max(1, -(-tiles // FULL))
    return steps, -(-tiles // steps)


def mix_tile(channels: int, positions: int) -> PairTile:
    """Tile of a product with the matrix; ``programs`` counts those that share the outputs."""
    outputs = min(256, max(16, power_of_two(channels)))
    wide, warps, inputs = _MIX[outputs]
    steps, programs = _divided(positions, wide)
    return PairTile(outputs, inputs, wide, steps, programs, warps)


def gradient_tile(channels: int, positions: int) -> PairTile:
    """Tile of the gradient of the matrix; ``programs`` counts those that share one block of it."""
    size = HELD if channels <= HELD else 32
    size = min(size, max(16, power_of_two(channels)))
    wide, warps = _GRADIENT[size]
    steps, programs = _divided(positions, wide)
    return PairTile(size, size, wide, steps, programs, warps)
