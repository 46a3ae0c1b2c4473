"""Models of normflows, nflows, FrEIA and zuko, as they are and accelerated: ``python -m benchmarks.integrations``.

    python -m benchmarks.integrations                          # all of it
    python -m benchmarks.integrations --works normflows        # those whose names contain the word

Timed is a forward and backward pass, the sides in turn in one process; counted are the activations that a pass through
32 steps a level keeps alive. What a run measures takes the place of the same works in
``benchmarks/results/integrations.csv`` (with ``--threads 1`` in ``integrations-one-thread.csv``); works that were
disturbed go to ``.bench`` instead.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks import _environment
from benchmarks._measure import LEAST_ROUNDS, Timing, interleave, self_check
from benchmarks._results import RESULTS, UNVERIFIED, Record, read_csv, write_csv
from benchmarks.glow.memory import in_fresh_process
from benchmarks.integrations import peaks, table
from benchmarks.integrations.works import AGAIN, LIBRARY, WORKS, Work
from benchmarks.integrations.zuko_works import ZUKO_WORKS

RECOMPUTE = "accelerated, networks computed again"
PEAKS = {"normflows, Glow with 32 steps a level": "normflows", "FrEIA, Glow with 32 steps a level": "freia"}
PEAK_TARGET = 5.0
EVERY = (*WORKS, *ZUKO_WORKS)
NAMES = (*(work.name for work in EVERY), *PEAKS)
_ATTEMPTS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.integrations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--works", default="", help="a word in the names of those to measure")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help=f"at least {LEAST_ROUNDS}")
    parser.add_argument("--threads", type=int, default=_environment.THREADS, help=f"default {_environment.THREADS}")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of results")
    options = parser.parse_args(arguments)
    chosen = [name for name in NAMES if options.works == name] or [name for name in NAMES if options.works in name]
    if not chosen:
        parser.error(f"works: got {options.works!r}, which is in none of {'; '.join(NAMES)}")
    if options.rounds < LEAST_ROUNDS:
        parser.error(f"rounds: got {options.rounds}, expected at least {LEAST_ROUNDS}")
    _environment.with_allocator_settings("benchmarks.integrations", arguments)
    torch.set_num_threads(options.threads)
    held = True
    for name in chosen:
        records = list(measured(name, options.rounds))
        quiet = all(map(self_check, table.checks(records).values()))
        held = held and quiet
        path = _keep(records, options.results if quiet else UNVERIFIED)
        print(f"{table.render(records)}\nresults: {path}\n", flush=True)
    return 0 if held else 1


def measured(name: str, rounds: int) -> Iterator[Record]:
    """The records of one work."""
    conditions = _environment.conditions()
    if name in PEAKS:
        yield from _peaks(name, conditions)
        return
    (work,) = (work for work in EVERY if work.name == name)
    timings = _timed(work, rounds)
    for side, timing in timings.items():
        ratio = timings[LIBRARY].median / timing.median
        yield _record(name, side, conditions, ratio, work.targets.get(side), timing=timing)


def _timed(work: Work, rounds: int) -> dict[str, Timing]:
    sides = work.sides()
    for _ in range(_ATTEMPTS):
        timings = interleave(sides, rounds=rounds, settle=len(work.shape) == 2)
        if self_check(timings[AGAIN].median / timings[LIBRARY].median):
            break
    return timings


def _peaks(name: str, conditions: Record) -> Iterator[Record]:
    found = {
        side: in_fresh_process(
            peaks.peak, PEAKS[name], side == RECOMPUTE, peaks.DEEP, peaks.BATCH, torch.get_num_threads()
        )
        for side in (LIBRARY, RECOMPUTE)
    }
    for side, size in found.items():
        target = PEAK_TARGET if side == RECOMPUTE else None
        yield _record(name, side, conditions, found[LIBRARY] / size, target, peak=size)


def _record(
    work: str,
    side: str,
    conditions: Record,
    ratio: float,
    target: float | None,
    *,
    timing: Timing | None = None,
    peak: int | None = None,
) -> Record:
    values = {
        "work": work,
        "side": side,
        "kind": "time" if peak is None else "peak",
        "median_s": timing and timing.median,
        "q1_s": timing and timing.q1,
        "q3_s": timing and timing.q3,
        "rounds": timing and timing.rounds,
        "peak_bytes": peak,
        "ratio": ratio,
        "target": target,
    }
    return {key: "" if value is None else str(value) for key, value in values.items()} | conditions


def _keep(records: Sequence[Record], folder: Path) -> Path:
    """Puts the records in the place of those of the same works, in the order of :data:`NAMES`."""
    path = folder / (table.ONE_THREAD if records[0]["threads"] == "1" else table.FILE)
    works = {record["work"] for record in records}
    others = [record for record in (read_csv(path) if path.exists() else []) if record["work"] not in works]
    write_csv(path, sorted([*others, *records], key=lambda record: NAMES.index(record["work"])))
    return path


if __name__ == "__main__":
    sys.exit(main())
