"""The integer tables from which every mass of the coder comes: part of the format, the same on every machine.

They are computed by Python's decimal arithmetic, whose exponential is correctly rounded by its specification, and are
held against a checksum that belongs to the version of the format.
"""

from __future__ import annotations

import zlib
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import cache
from typing import NamedTuple

import numpy as np

MASS_BITS = 24  # masses of a symbol add up to 2**24
WINDOW = 4096  # values around the mean that have masses of their own; others are escaped
ONE_BITS = 30  # of the cumulative function: 2**30 stands for 1
ONE = 1 << ONE_BITS
MEAN_STEPS = 64  # of a mean, in one unit of the data
SCALE_STEPS = 16  # of a log-scale, in one nat
LEAST_LOG_SCALE = -6  # of scale index 0
SCALES = 256
LOGIT_STEPS = 16  # of a logit, in one nat
WEIGHT_BITS = 16  # weights of a mixture add up to 2**16
SHARE_BITS = 46  # of the inverse of their sum before
ARGUMENT_BITS = 16  # of the argument of the logistic function, after the point
TABLE_BITS = 6  # of those that choose an entry; between two entries the function is a line
LIMIT = 24  # beyond this argument the tail is 0
INVERSE_BITS = 30  # of the inverse scales, after the point
FARTHEST = 1 << 24  # from a mean, in steps of it: larger distances count as this one

_CHECKSUM = 0x98807A1C
_CONTEXT = Context(prec=40, rounding=ROUND_HALF_EVEN)


class Tables(NamedTuple):
    """``tail``: ``2**30 sigma(-i / 64)``; ``inverse``: ``2**30 / scale``; ``weight``: ``2**20 exp(-i / 16)``."""

    tail: np.ndarray
    inverse: np.ndarray
    weight: np.ndarray


def _exp(numerator: int, denominator: int) -> Decimal:
    return _CONTEXT.exp(_CONTEXT.divide(Decimal(numerator), Decimal(denominator)))


def _rounded(bits: int, value: Decimal) -> int:
    return int(_CONTEXT.to_integral_value(_CONTEXT.multiply(Decimal(1 << bits), value)))


@cache
def tables() -> Tables:
    """The tables of version 1 of the format; int32, int64 and int32, not to be written to.

    Raises:
        RuntimeError: this Python computes other numbers.
    """
    entries = range((LIMIT << TABLE_BITS) + 2)
    one = Decimal(1)
    tail = [_rounded(ONE_BITS, _CONTEXT.divide(one, _CONTEXT.add(one, _exp(i, 1 << TABLE_BITS)))) for i in entries]
    lowest = LEAST_LOG_SCALE * SCALE_STEPS
    inverse = [_rounded(INVERSE_BITS, _exp(-(lowest + i), SCALE_STEPS)) for i in range(SCALES)]
    weight = [_rounded(20, _exp(-i, LOGIT_STEPS)) for i in range(256)]
    found = Tables(np.array(tail, "<i4"), np.array(inverse, "<i8"), np.array(weight, "<i4"))
    for table in found:
        table.setflags(write=False)
    checksum = zlib.crc32(b"".join(table.tobytes() for table in found))
    if checksum != _CHECKSUM:
        raise RuntimeError(f"tables of the codec: got the checksum {checksum:#010x}, expected {_CHECKSUM:#010x}")
    return found
