"""Tiles at the sizes of flows: enough programs and warps for a large GPU, and few second launches. Needs no GPU."""

from __future__ import annotations

import pytest
import torch

from hybridkern import _env
from hybridkern.ops._triton import pair_tiles, tiles
from hybridkern.ops._triton.layout import needs_wide, operand, order_of
from hybridkern.ops._triton.pair import half_of
from hybridkern.ops._triton.pair import needs_wide as needs_wide_pairs
from hybridkern.ops._triton.pair_tiles import gradient_tile, mix_tile
from hybridkern.ops._triton.tiles import Tile, batch_tile_of, tile_of

MULTIPROCESSORS = 132


@pytest.fixture(autouse=True)
def _own_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_env, "TRITON_WARPS", 0)


def covers(tile: Tile, rows: int, columns: int) -> bool:
    """Every element is some program's, and no program has nothing to do."""
    groups = tile.programs // tile.chunks
    enough = groups * tile.rows >= rows and tile.chunks * tile.steps * tile.columns >= columns
    return enough and (groups - 1) * tile.rows < rows and (tile.chunks - 1) * tile.steps * tile.columns < columns


# rows, columns: rows of a tile, its columns, steps, chunks, programs, warps
SUMS = {
    (256, 6 * 32 * 32): (1, 2048, 3, 1, 256, 16),  # a CTA an example, and no second launch
    (64, 48 * 16 * 16): (1, 2048, 6, 1, 64, 16),
    (512, 3072): (1, 1024, 3, 1, 512, 8),
    (4096, 3072): (1, 512, 6, 1, 4096, 4),  # examples enough
    (1200, 3072): (1, 1024, 3, 1, 1200, 8),
    (256, 12 * 8 * 8): (1, 512, 2, 1, 256, 4),  # two steps remain
    (256, 100): (4, 128, 1, 1, 64, 4),
    (3, 500_000): (1, 2048, 9, 28, 84, 16),  # too few examples: they are divided
}


@pytest.mark.parametrize("size", SUMS, ids=str)
def test_sums_over_examples(size: tuple[int, int]) -> None:
    tile = tile_of(*size, 4, True)
    assert tile == SUMS[size]
    assert covers(tile, *size)
    assert tile.chunks == 1 or tile.steps >= tiles.LEAST


def test_one_warp_stays_one() -> None:
    """The mixture and the spline keep the sums of an element within a warp."""
    for rows in (1, 64, 4096):
        assert tile_of(rows, 3072, 4, True, 8, warps=1).warps == 1


def test_without_sums_examples_are_divided_freely() -> None:
    tile = tile_of(64, 48 * 16 * 16, 4, False)
    assert tile == (1, 512, 1, 24, 1536, 4) and covers(tile, 64, 48 * 16 * 16)


def test_warps_may_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_env, "TRITON_WARPS", 2)
    assert tile_of(64, 12288, 4, True).warps == batch_tile_of(64, 12288, 4).warps == 2


@pytest.mark.parametrize("rows", [1, 2, 7, 64, 100, 512, 5000])
@pytest.mark.parametrize("columns", [1, 3, 60, 512, 3072, 12345])
@pytest.mark.parametrize("vector", [2, 4, 8])
def test_tiles_cover_everything_once(rows: int, columns: int, vector: int) -> None:
    for reduces in (False, True):
        assert covers(tile_of(rows, columns, vector, reduces), rows, columns)
    down = batch_tile_of(rows, columns, vector)
    across = down.programs // down.chunks
    assert across * down.columns >= columns > (across - 1) * down.columns
    assert down.chunks * down.steps * down.rows >= rows > (down.chunks - 1) * down.steps * down.rows
    assert down.steps <= 32


def test_sums_down_the_batch_take_several_steps_where_programs_are_many() -> None:
    """Each group of examples leaves partial sums, which a second launch reads."""
    tile = batch_tile_of(512, 3072, 4)
    assert tile == (4, 128, 4, 32, 768, 4)
    assert batch_tile_of(1024, 3072, 4).steps == 4 and batch_tile_of(2560, 3072, 4).steps == 6
    assert batch_tile_of(64, 3072, 4).steps == 1  # programs are few already


@pytest.mark.parametrize(("channels", "positions"), [(12, 256 * 256), (24, 256 * 64), (48, 256 * 16), (48, 64 * 16)])
def test_small_images_reach_every_multiprocessor(channels: int, positions: int) -> None:
    """At the levels of a Glow on 3x32x32: one tile a program until all fit at once."""
    for tile in (mix_tile(channels, positions), gradient_tile(channels, positions)):
        needed = -(-positions // tile.positions)
        assert tile.steps == 1 and tile.programs == needed <= pair_tiles.FULL
    assert mix_tile(48, 256 * 16).programs == 128


@pytest.mark.parametrize("positions", [1, 31, 32 * 1056, 32 * 1056 + 1, 10**6, 10**7])
def test_many_positions_are_walked_over(positions: int) -> None:
    tile = mix_tile(48, positions)
    needed = -(-positions // tile.positions)
    assert tile.programs <= pair_tiles.FULL and tile.programs * tile.steps >= needed
    assert (tile.programs - 1) * tile.steps < needed
    assert tile.programs >= min(needed, pair_tiles.FULL // 2) and tile.programs >= min(needed, MULTIPROCESSORS)


def far(*shape: int) -> torch.Tensor:
    """Of that shape, contiguous by its strides, without memory."""
    return torch.empty(shape, device="meta")


def is_wide(shape: tuple[int, ...], starts: tuple[int, ...] = (), shared: bool = False, sums: bool = True) -> bool:
    x = far(*shape)
    order = order_of(x)
    tile = batch_tile_of(order.rows, order.columns, 4) if shared else tile_of(order.rows, order.columns, 4, sums)
    return needs_wide(order, tile, [operand(x, order)], starts, shared=shared)


def test_what_reaches_beyond_31_bits_is_counted_in_64() -> None:
    """A number of 32 bits that comes back negative passes every mask, and what it points at is not the tensor's."""
    assert not is_wide((64, 48, 32, 32)) and not is_wide((2**20, 96)) and not is_wide((64, 96), (2**30,))
    assert is_wide((1, 2**31)) and is_wide((3, 2**31), shared=True)  # elements of an example
    assert is_wide((2**31,)) and is_wide((2**31, 1), shared=True)  # examples
    assert is_wide((2**31 - 5, 1), sums=False)  # a tile reaches beyond the last one
    # so do the steps of many programs together, and further than one tile does
    columns = 2**31 - 2**16 - 2**15
    tile = tile_of(1, columns, 4, True)
    assert tile.chunks * tile.steps * tile.columns > 2**31 and is_wide((1, columns))
    # where the shifts start in the parameters is added to an offset in them
    assert not is_wide((1, 3 * 2**28)) and is_wide((1, 3 * 2**29), (0, 3 * 2**29))


def test_positions_beyond_31_bits_are_counted_in_64() -> None:
    for positions, expected in ((2**20, False), (2**29, False), (2**31 - 2**16 - 1, True), (2**31 + 1, True)):
        half = half_of(far(1, 1, positions))
        for tile in (mix_tile(2, positions), gradient_tile(2, positions)):
            assert needs_wide_pairs(tile, 1, [half]) is expected
