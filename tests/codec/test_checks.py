"""A small part of the long checks of :mod:`tests.codec.checks`."""

from __future__ import annotations

import numpy as np
import pytest

from hybridkern._extension import extension
from hybridkern.codec import coder, reference
from hybridkern.codec.reference import Parameters
from tests.codec import cases, checks


def test_whatever_computes_gives_the_same_streams() -> None:
    compared, differences = checks.same(10_000, batch=12)
    assert compared >= 10_000 and differences == 0


def test_damaged_data_are_errors() -> None:
    assert checks.damage(300) == (300, [])


@pytest.mark.skipif(extension.module is None, reason="no compiled coder")
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("components", [1, 2, 5, 32])
def test_streams_side_by_side(components: int, shared: bool) -> None:
    """As many as fill all vectors, and some; rows of a length that no vector divides; one of them damaged."""
    count, size = 41, 37
    of = cases.parameters(7, 1 if shared else count, components, size)
    x = cases.values(8, count, of, far=0.03)
    seeds = np.arange(count, dtype=np.uint32) * 104729
    chosen = range(0, count, 10)
    rows = [Parameters(*(t[i : i + 1] if len(t) > 1 else t for t in of)) for i in chosen]
    expected = [reference.encode(x[i : i + 1], seeds[i : i + 1], row)[0] for i, row in zip(chosen, rows, strict=True)]
    for where in cases.everywhere():
        streams = coder.encode(x, seeds, of)
        assert streams[::10] == expected, where
        for some in (count, 33, 16, 9, 1):
            part = Parameters(*(t[:some] if len(t) > 1 else t for t in of))
            given = [stream[: len(stream) // 8 * 4] if i == 3 else stream for i, stream in enumerate(streams[:some])]
            decoders = coder.Decoders(given)
            sound = [i for i in range(some) if i != 3]
            assert np.array_equal(decoders.pop(part)[sound], x[sound]), where
            assert [decoders.seeds()[i] for i in sound] == seeds[sound].tolist(), where
            assert some < 4 or decoders.seeds()[3] != seeds[3]


def test_headers_say_that_they_are_damaged() -> None:
    """Each bit of a header, but for those of the fingerprint and the flag, which may be another model's."""
    from hybridkern import codec

    one = codec.Codec(checks.model())
    data = one.encode(cases.images(1, 3, checks.SHAPE))
    header = len(data) - sum(codec.container.unpack(data, one.shape)[0].sizes)
    for bit in range(8 * header):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(codec.DamagedError, match="header"):
            one.decode(bytes(damaged))
