"""Times of pieces of work: on the device, of the host that launches them, and of both until the end."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks._measure import LEAST_ROUNDS, Timing
from benchmarks.gpu.device import Device

_WARM_UP = 3
_LEAST_CUT = 3  # rounds of what the deadline ends, whose row says how many there were
_LEAST_COVER = 1e-3
_MOST_COVER = 0.2


@dataclass(frozen=True)
class Piece:
    """Something to time: ``run(prepare())``, of which only ``run`` is timed, inside ``around()``, entered before."""

    run: Callable[[Any], object]
    prepare: Callable[[], Any] = lambda: None
    around: Callable[[], AbstractContextManager[Any]] = nullcontext


class Times(NamedTuple):
    """Of one piece: seconds on the device, of the host until the last launch, and of both until the end."""

    device: Timing
    host: Timing
    wall: Timing


def once(device: Device, piece: Piece, cover: float) -> tuple[float, float, float]:
    """One measurement of each kind.

    On the device the time runs between two events; the work is launched while the device is kept busy, so that it does
    not wait for the host. (No longer than the queue of launches lasts: some thousand of them.)
    """
    with piece.around():
        state = piece.prepare()
        device.synchronize()
        device.flush()
        device.cover(cover)
        start, end = device.event(), device.event()
        start.record()
        began = device.now()
        piece.run(state)
        host = device.now() - began
        end.record()
        end.synchronize()
        state = piece.prepare()
        device.flush()
        device.synchronize()
        began = device.now()
        piece.run(state)
        device.synchronize()
        return 1e-3 * start.elapsed_time(end), host, device.now() - began


def warm_up(device: Device, piece: Piece) -> float:
    """Runs it until kernels are compiled and memory is cached; seconds that the cover must last."""
    longest = 0.0
    for _ in range(_WARM_UP):
        with piece.around():
            state = piece.prepare()
            device.synchronize()
            began = device.now()
            piece.run(state)
            longest = device.now() - began  # of the last run: the first ones compile
            device.synchronize()
    return min(_MOST_COVER, max(_LEAST_COVER, 2 * longest))


def interleave(
    device: Device,
    sides: Mapping[str, Piece],
    covers: Mapping[str, float],
    rounds: int,
    time_left: Callable[[], float] = lambda: math.inf,
) -> dict[str, Times]:
    """Times every side once a round, in an order drawn anew each round; medians and quartiles.

    Args:
        device: what the sides run on.
        sides: each of them warm.
        covers: what :func:`warm_up` gave for it.
        rounds: at least 15.
        time_left: seconds; where another round would take longer there are fewer, three at least.

    Raises:
        ValueError: too few rounds.
    """
    if rounds < LEAST_ROUNDS:
        raise ValueError(f"rounds: got {rounds}, expected at least {LEAST_ROUNDS}")
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in sides}
    order = list(sides)
    shuffle = random.Random(0).shuffle
    for done in range(rounds):
        before = time_left()
        shuffle(order)
        for name in order:
            found[name].append(once(device, sides[name], covers[name]))
        left = time_left()
        if done + 1 >= _LEAST_CUT and left < before - left:
            break
    return {name: Times(*(_summary(list(kind)) for kind in zip(*times, strict=True))) for name, times in found.items()}


def peak_memory(device: Device, piece: Piece) -> int:
    """Bytes that torch's allocator hands out at most during a run, beside what is there before it."""
    with piece.around():
        state = piece.prepare()
        device.synchronize()
        before = device.reset_memory()
        piece.run(state)
        device.synchronize()
        return device.peak_memory() - before


def _summary(times: list[float]) -> Timing:
    q1, median, q3 = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(median, q1, q3, len(times), 1)
