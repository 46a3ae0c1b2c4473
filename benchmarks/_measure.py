"""Times several functions in turn: whatever else the machine does meets all of them alike."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

LEAST_ROUNDS = 15
SELF_TOLERANCE = 0.05
_WARM_UP = 3
_MOST_CALLS = 2000
_TICK = 1e-7  # of the clock: nothing is shorter


@dataclass(frozen=True)
class Timing:
    """Seconds a call: median and quartiles over the rounds, each round being the mean of ``calls`` calls."""

    median: float
    q1: float
    q3: float
    rounds: int
    calls: int


def interleave(
    sides: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 41,
    seconds: float = 0.02,
    settle: bool = True,
) -> dict[str, Timing]:
    """Times every function once a round, in an order drawn anew each round.

    Before each measurement the function is called once untimed, so that none finds its data in the cache, or not,
    because of the one before it. The garbage collector runs between rounds only.

    Args:
        sides: what to time, by name.
        rounds: at least 15.
        seconds: how long one measurement should last; short functions are called many times in it.
        settle: ``False`` leaves the untimed calls out but for two at the start: for functions that take so long, and
            touch so much memory, that what the caches hold when they start does not matter.

    Raises:
        ValueError: too few rounds.
    """
    if rounds < LEAST_ROUNDS:
        raise ValueError(f"rounds: got {rounds}, expected at least {LEAST_ROUNDS}")
    warm_up = _WARM_UP if settle else 1
    calls = {name: _calls_within(function, seconds, warm_up) for name, function in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    shuffle = random.Random(0).shuffle
    gc.collect()
    gc.freeze()  # what exists by now is not looked through again between the rounds
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                if settle:
                    sides[name]()
                times[name].append(seconds_a_call(sides[name], calls[name]))
            gc.collect()
    finally:
        gc.enable()
        gc.unfreeze()
    return {name: _summary(times[name], calls[name]) for name in sides}


def self_check(ratio: float) -> bool:
    """Whether a function timed against itself came out equal."""
    return abs(ratio - 1) <= SELF_TOLERANCE


def _calls_within(function: Callable[[], object], seconds: float, warm_up: int) -> int:
    for _ in range(warm_up):
        function()
    shortest = min(seconds_a_call(function, 1) for _ in range(warm_up))
    return max(1, min(_MOST_CALLS, round(seconds / max(shortest, _TICK))))


def seconds_a_call(function: Callable[[], object], calls: int) -> float:
    """Mean of ``calls`` calls in a row."""
    began = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - began) / calls


def _summary(times: list[float], calls: int) -> Timing:
    q1, median, q3 = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(median, q1, q3, len(times), calls)
