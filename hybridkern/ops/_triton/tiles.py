"""Which tile a kernel works on, by shape: a table with its reasons, the same on every device.

A program handles ``rows`` examples times ``columns`` elements at a time and walks over ``steps`` such tiles; ``chunks``
programs share the elements of one example.

- Each thread holds 16 bytes of the widest operand (``vector`` elements): one access of the widest kind for it, and
  accesses of adjacent threads touch whole sectors for narrower operands too. A program has 128 threads: at up to 64
  registers they give full occupancy on every target, and four warps still share a reduction cheaply.
- An example that fits a tile shares it with others (``rows``), so that short rows leave few threads idle.
- A longer example is walked over by one program as long as the batch alone fills a GPU (``FULL`` programs: 16 on each
  of the 132 to 144 multiprocessors of a large one); else it is divided. Where the parts must be summed, a second launch
  then follows. So there the program first grows, to ``MOST_WARPS`` at most: few long examples want more loads at a
  time, not more programs. What is divided all the same has ``LEAST`` steps per part.
- The choice hangs on shapes alone, never on the device: the same input gives the same order of summation anywhere.
"""

from __future__ import annotations

from typing import NamedTuple

from hybridkern import _env

THREADS = 128
FULL = 2304
LEAST = 8
MOST_WARPS = 16
DOWN = 4  # steps down the batch that a program sums, once there are enough programs for a quarter of a GPU's threads


class Tile(NamedTuple):
    """Tile of a kernel: see this module."""

    rows: int
    columns: int
    steps: int
    chunks: int
    programs: int
    warps: int


def power_of_two(n: int) -> int:
    """The least power of two that is at least ``n``."""
    return 1 << max(0, int(n) - 1).bit_length()


def tile_of(rows: int, columns: int, vector: int, reduces: bool, shrink: int = 1, warps: int = THREADS // 32) -> Tile:
    """The tile for ``rows`` examples of ``columns`` elements; ``reduces``: their parts must be summed.

    ``shrink`` divides the elements of a tile whose threads hold something else besides.
    """
    full = FULL * THREADS // (32 * warps)
    if reduces and not _env.TRITON_WARPS:
        warps = _grown(rows, columns, vector, warps)
    warps = _env.TRITON_WARPS or warps
    size = max(1, vector * 32 * warps // shrink)
    wide = min(size, power_of_two(columns))
    high = size // wide
    groups = -(-rows // high)
    steps = -(-columns // wide)
    least = LEAST if reduces else 1
    wanted = max(1, -(-full // max(1, groups)))
    chunks = min(wanted, max(1, steps // least))
    each = -(-steps // chunks)
    chunks = -(-steps // each)
    return Tile(high, wide, each, chunks, groups * chunks, warps)


def _grown(rows: int, columns: int, vector: int, warps: int) -> int:
    """Warps of a program that has an example for itself, where there are too few examples to fill a GPU.

    Two steps remain, since each warp reads what there is once per example. One warp keeps its sums to itself, and stays
    one.
    """
    while 1 < warps < MOST_WARPS and 4 * vector * 32 * warps <= columns and rows * warps * 32 < FULL * THREADS:
        warps *= 2
    return warps


def batch_tile_of(rows: int, columns: int, vector: int, shrink: int = 1, warps: int = THREADS // 32) -> Tile:
    """The tile of a kernel that sums over the batch: ``chunks`` groups of ``rows * steps`` examples.

    32 columns times the vector make whole lines of 128 bytes or more; the four warps take different examples. A group
    is at most 32 steps long, so that float32 partial sums stay accurate. It is ``DOWN`` steps at least where that
    leaves programs for a quarter of a GPU's threads, since each group leaves partial sums; shorter where columns are
    few.
    """
    full = FULL * THREADS // (32 * warps)
    warps = _env.TRITON_WARPS or warps
    size = max(1, vector * 32 * warps // shrink)
    wide = min(size, max(1, power_of_two(columns)), 32 * vector)
    high = size // wide
    across = -(-columns // wide)
    needed = -(-rows // high)
    each = max(1, min(32, max(needed * across // full, min(DOWN, needed * across // max(1, full // 4)))))
    chunks = max(1, -(-needed // each))
    return Tile(high, wide, each, chunks, across * chunks, warps)
