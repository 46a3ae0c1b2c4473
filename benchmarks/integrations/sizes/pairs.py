"""Two functions timed in turn, and an interval of the ratio of their times."""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks._measure import seconds_a_call

LEAST, MOST = 7, 41
SURE = 1.25  # from a lower end of the interval that is this far from 1 on, more rounds would say nothing new
CONFIDENCE = 0.95
_SECONDS = 2e-3  # of one measurement


@dataclass(frozen=True)
class Pair:
    """Seconds a call of both, medians; and the ratio of the first to the second, with its interval."""

    first: float
    second: float
    ratio: float
    low: float
    high: float
    rounds: int


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """An interval that holds the median of what the values are drawn from with 95 % probability at least.

    By order statistics: the number of values under the median is binomial, whatever their distribution. Fewer than six
    values cannot hold it so surely: then it is everything.
    """
    ordered, n = sorted(values), len(values)
    below, k = 0.0, 0  # probability that at most k - 1 values lie under the median
    while k < n:
        below += math.comb(n, k) / 2**n
        if 2 * below > 1 - CONFIDENCE:
            break
        k += 1
    return (-math.inf, math.inf) if k == 0 else (ordered[k - 1], ordered[n - k])


def timed(first: Callable[[], object], second: Callable[[], object], budget: float) -> Pair:
    """Both in turn, each round in the other order, until the budget of seconds is spent or the result is sure.

    A round's ratio is one of neighbors in time. There are ``LEAST`` rounds, whatever they take. The garbage collector
    runs between rounds only.
    """
    calls = [max(1, math.ceil(_SECONDS / min(_once(side), _once(side)))) for side in (first, second)]
    sides = [(0, first), (1, second)]
    times: tuple[list[float], list[float]] = ([], [])
    spent = 0.0
    gc.collect()
    gc.disable()
    try:
        while len(times[0]) < LEAST or (len(times[0]) < MOST and spent < budget and not _is_sure(times)):
            for place, side in sides:
                seconds = seconds_a_call(side, calls[place])
                times[place].append(seconds)
                spent += seconds * calls[place]
            sides.reverse()
    finally:
        gc.enable()
    ratios = _ratios(times)
    low, high = median_interval(ratios)
    medians = [statistics.median(each) for each in times]
    return Pair(medians[0], medians[1], statistics.median(ratios), low, high, len(ratios))


def _once(side: Callable[[], object]) -> float:
    return max(seconds_a_call(side, 1), 1e-6)


def _ratios(times: tuple[list[float], list[float]]) -> list[float]:
    return [a / b for a, b in zip(*times, strict=True)]


def _is_sure(times: tuple[list[float], list[float]]) -> bool:
    return median_interval(_ratios(times))[0] > SURE
