"""Processes of two revisions that take turns, and what came of it."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._case import TOLERANCE
from benchmarks._environment import ALLOCATOR
from benchmarks._results import ROOT

BASE, HEAD, AGAIN = "base", "head", "head again"
_SECONDS = 0.02  # of one measurement
_MOST_CALLS = 2000
# After so many rounds a case is built anew, at other addresses: how arrays lie to each other in the cache can make tens
# of percent, for either side.
_ROUNDS_A_BUILD = 3


class Process:
    """A worker whose ``hybridkern`` is that of ``source``; the benchmarks themselves are those of this checkout.

    Raises:
        RuntimeError: it does not start, or has another ``hybridkern`` or no extension.
    """

    def __init__(self, name: str, source: Path) -> None:
        self.name = name
        links = source.parent / "path"  # of the sources only the package: they have benchmarks of their own
        links.mkdir(exist_ok=True)
        if not (links / "hybridkern").exists():
            (links / "hybridkern").symlink_to(source / "hybridkern")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.compare.worker"],
            cwd=links,
            env=ALLOCATOR | dict(os.environ) | {"PYTHONPATH": os.pathsep.join([str(links), str(ROOT)])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.conditions = self._started(source)
        except RuntimeError:
            self.close()
            raise

    def _started(self, source: Path) -> dict[str, str]:
        started = self._answer("its start")
        if Path(started["path"]) != source.resolve():
            raise RuntimeError(f"{self.name}: imported hybridkern of {started['path']}, expected that of {source}")
        if started["without_extension"] is not None:
            raise RuntimeError(f"{self.name}: runs without the extension: {started['without_extension']}")
        conditions: dict[str, str] = started["conditions"]
        return conditions

    def ask(self, what: str, argument: object) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            RuntimeError: the process ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({what: argument}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # said by the missing answer
        return self._answer(f"{what} {argument}")

    def _answer(self, what: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: the process ended with {self._process.wait()} in {what}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Ends the process."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait()


@dataclass
class Found:
    """Seconds a call of one case, by side, one number a round; ``problem``: why it could not be compared."""

    times: dict[str, list[float]] = field(default_factory=lambda: {BASE: [], HEAD: [], AGAIN: []})
    problem: str = ""

    def __str__(self) -> str:
        return self.problem or f"base / head {self.ratio():.2f}, head / head {self.ratio(AGAIN):.2f}"

    def ratio(self, side: str = BASE) -> float:
        """Median over the rounds of a side by the head: what slows a whole round down is in both."""
        return statistics.median(self._ratios(side))

    def ratio_quartiles(self) -> tuple[float, float]:
        """Quartiles of base by head, round by round."""
        q1, _, q3 = statistics.quantiles(self._ratios(BASE), n=4, method="inclusive")
        return q1, q3

    def _ratios(self, side: str) -> list[float]:
        return [one / head for one, head in zip(self.times[side], self.times[HEAD], strict=True)]


def take_turns(processes: Mapping[str, Process], case: str, rounds: int, found: Found) -> None:
    """Adds ``rounds`` rounds of ``case`` to ``found``: every process once a round, in an order drawn anew."""
    order, calls = list(processes), 1
    for done in range(rounds):
        if done % _ROUNDS_A_BUILD == 0:
            built = {side: process.ask("build", case) for side, process in processes.items()}
            found.problem = _problem(built)
            if found.problem:
                return
            calls = max(1, min(_MOST_CALLS, round(_SECONDS / max(built[HEAD]["seconds"], 1e-7))))
        random.shuffle(order)
        for side in order:
            found.times[side].append(processes[side].ask("time", calls)["seconds"])


def _problem(built: Mapping[str, dict[str, Any]]) -> str:
    for side, answer in built.items():
        if "error" in answer:
            return f"{side} cannot run it: {answer['error']}"
    base, head = built[BASE]["results"], built[HEAD]["results"]
    if [shape for shape, _ in base] != [shape for shape, _ in head]:
        return "base and head give results of different shapes"
    # written so that NaN does not pass
    same = all(abs(a - b) <= TOLERANCE * abs(b) for (_, a), (_, b) in zip(base, head, strict=True))
    return "" if same else "base and head give different results"


def compare(
    sources: Mapping[str, Path], cases: Sequence[str], starts: int, rounds: int
) -> tuple[dict[str, Found], dict[str, str]]:
    """Every case, in ``starts`` sets of fresh processes: one process's memory may lie luckier than another's.

    Args:
        sources: folders of ``BASE`` and ``HEAD``.
        cases: names.
        starts: how often the processes are started.
        rounds: in each set.

    Returns:
        What was found, by case; and the conditions, as the head's process has them.

    Raises:
        RuntimeError: a process does not start, or ends too early.
    """
    found, conditions = {case: Found() for case in cases}, {}
    for start in range(starts):
        processes: dict[str, Process] = {}
        try:
            for side in (BASE, HEAD, AGAIN):
                processes[side] = Process(side, sources[BASE if side == BASE else HEAD])
            conditions = processes[HEAD].conditions
            for case in cases:
                if not found[case].problem:
                    take_turns(processes, case, rounds, found[case])
                print(f"start {start + 1} of {starts}: {case}: {found[case]}", file=sys.stderr, flush=True)
        finally:
            for process in processes.values():
                process.close()
    return found, conditions
