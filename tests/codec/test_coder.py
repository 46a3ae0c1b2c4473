"""The coder: both implementations give the same bytes, and the bytes are as many as the masses say."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

import hybridkern
from hybridkern import ops
from hybridkern.codec import coder, reference, tables
from hybridkern.codec.reference import Parameters
from tests.codec import cases
from tests.conftest import COMPILED_BACKENDS

COMPONENTS = [1, 2, 5]
SEEDS = np.array([0, 2**32 - 1, 2**31, 1, 2**31 - 1, 2**24, 123456789], np.uint32)


def encoded(x: np.ndarray, of: Parameters) -> list[bytes]:
    return coder.encode(x, np.resize(SEEDS, len(x)), of)


def decoded(streams: list[bytes], of: Parameters, steps: int = 1) -> tuple[np.ndarray, list[int]]:
    decoders = coder.Decoders(streams)
    parts = [Parameters(*part) for part in zip(*(np.array_split(table, steps, 2) for table in of), strict=True)]
    found = np.concatenate([decoders.pop(part) for part in parts], 1)
    return found, decoders.seeds()


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("components", COMPONENTS)
def test_round_trip(backend: str, components: int, rows: int) -> None:
    of = cases.parameters(0, rows, components, 60)
    x = cases.values(1, 7, of)
    streams = encoded(x, of)
    for steps in (1, 3):
        found, seeds = decoded(streams, of, steps)
        assert np.array_equal(found, x) and seeds == SEEDS[: len(x)].tolist()


@pytest.mark.skipif(not COMPILED_BACKENDS, reason="no compiled coder")
@pytest.mark.parametrize("components", COMPONENTS)
def test_both_coders_give_the_same_bytes(components: int) -> None:
    of = cases.parameters(2, 6, components, 80)
    x = cases.values(3, 6, of, far=0.2)
    compiled = encoded(x, of)
    assert compiled == reference.encode(x, SEEDS, of)
    for i in range(6):
        one = Parameters(*(table[i : i + 1] for table in of))
        assert coder.encode(x[i : i + 1], SEEDS[i : i + 1], one) == compiled[i : i + 1]


@pytest.mark.parametrize("value", [-(2**31), 2**31 - 1, 2**24, -5000, 2047, 2048, -2048, -2049, 0])
def test_extreme_values(backend: str, value: int) -> None:
    of = Parameters(*(np.full((1, 1, 3), number, np.int32) for number in (0, 0, 255)))
    x = np.array([[0, value, 1]], np.int32)
    found, seeds = decoded(encoded(x, of), of)
    assert np.array_equal(found, x) and seeds == SEEDS[: len(x)].tolist()


@pytest.mark.parametrize("logits", [(0, 0, 0), (0, -255, -300), (2**31 - 1, -(2**31), 0), (-5, -5, -90)])
def test_weights_that_are_all_but_zero(backend: str, logits: tuple[int, ...]) -> None:
    of = Parameters(
        np.array(logits, np.int32).reshape(1, 3, 1),
        np.array([-(2**30), 0, 2**30], np.int32).reshape(1, 3, 1),
        np.array([0, 128, 255], np.int32).reshape(1, 3, 1),
    )
    for value in (-(2**24), 0, 2**24, 2**31 - 1):
        x = np.array([[value]], np.int32)
        found, seeds = decoded(encoded(x, of), of)
        assert np.array_equal(found, x) and seeds == SEEDS[: len(x)].tolist()


@pytest.mark.parametrize("components", COMPONENTS)
def test_bins_fill_the_range(components: int) -> None:
    of = cases.parameters(4, 1, components, 12)
    for d in range(12):
        symbol = reference.Symbol(*(table[0, :, d] for table in of))
        starts = [symbol.start(b) for b in range(0, tables.WINDOW + 1, 13)]
        assert starts[0] >= 0 and starts[-1] < 2**tables.MASS_BITS
        assert all(later - earlier >= 13 for earlier, later in pairwise(starts))
        for place in (0, 5000, 2**23, 2**24 - 1):
            b = symbol.find(place)
            assert b < 0 or symbol.start(b) <= place
            assert b >= tables.WINDOW or place < symbol.start(b + 1)


@pytest.mark.parametrize("components", [1, 5])
def test_length_is_the_log_probability(components: int) -> None:
    """Values of their own distributions: within 0.01 bits a dimension, beside the seed and half a byte a stream."""
    rng = np.random.default_rng(5)
    shape = (20, components, 800)
    means, log_scales = rng.normal(0, 40, shape), rng.uniform(-1.5, 3, shape)
    logits = rng.normal(0, 1, shape)
    k = (rng.gumbel(size=shape) + logits).argmax(1)[:, None]
    noise = rng.logistic(size=(20, 1, 800))
    picked = np.take_along_axis(means, k, 1) + noise * np.exp(np.take_along_axis(log_scales, k, 1))
    x = np.rint(picked[:, 0]).astype(np.int32)
    of = coder.on_grid(logits, means, log_scales)
    tensors = [torch.from_numpy(table) for table in (x.astype(np.float64), logits, means, log_scales)]
    with hybridkern.use_backend("reference"):
        log_p = ops.discretized_logistic_mixture_log_prob(*tensors, reduction="sum")
    ideal = -log_p.sum().item() / np.log(2)
    spent = 8 * sum(map(len, coder.encode(x, np.full(20, 2**31), of)))
    assert -0.01 < (spent - ideal - (32 + 4) * 20) / x.size < 0.01


def test_tables() -> None:
    found = tables.tables()
    assert np.array_equal(found.tail, np.rint(2.0**30 / (1 + np.exp(np.arange(len(found.tail)) / 64))))
    scales = np.exp(np.arange(256) / 16 - 6)
    assert np.array_equal(found.inverse, np.rint(2.0**30 / scales))
    assert np.array_equal(found.weight, np.rint(2.0**20 * np.exp(-np.arange(256) / 16)))


def test_damaged_streams(backend: str) -> None:
    of = cases.parameters(6, 1, 2, 40)
    x = cases.values(7, 1, of)
    (stream,) = encoded(x, of)
    rng = np.random.default_rng(8)
    damaged = [bytes(rng.integers(0, 256, size, dtype=np.uint8)) for size in range(40)]
    damaged += [stream[:size] for size in range(len(stream))] + [stream + b"\0", b"\0" * 4 + stream]
    for one in damaged:
        found, seeds = decoded([one, stream], of)
        assert np.array_equal(found[1], x[0]) and seeds[1] == SEEDS[0]
        assert seeds[0] != SEEDS[0] or not np.array_equal(found[0], x[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scales": np.full((1, 1, 2), 256)}, "beyond the grid"),
        ({"means": np.full((1, 1, 2), 2**30 + 1)}, "beyond the grid"),
        ({name: np.zeros((1, 33, 2)) for name in Parameters._fields}, "33 components"),
    ],
)
def test_refused(backend: str, change: dict[str, np.ndarray], message: str) -> None:
    of = Parameters(*(np.zeros((1, 1, 2), np.int32) for _ in range(3)))._replace(**change)
    with pytest.raises(ValueError, match=message):
        encoded(np.zeros((1, 2), np.int32), of)
