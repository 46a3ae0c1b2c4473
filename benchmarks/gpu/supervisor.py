"""Runs the phases one after the other, each in processes of its own, and keeps to the budget.

A phase has until its own end, counted from the start of the run: what an earlier one leaves is there for the next. A
process that is not through by then is ended; one that dies is replaced by another, which leaves out the side that it
died in. Either way a row says what was lost.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks._results import ROOT
from benchmarks.gpu.device import Device
from benchmarks.gpu.item import Phase
from benchmarks.gpu.rows import FAILED, SKIPPED, Table
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.worker import DONE, LOST, OUT_OF_TIME, journal_of, share_of, work

FULL = 560.0  # seconds of the run that the ends of the phases are stated for
_GRACE = 2.0  # seconds beyond its deadline that a worker has to write its last row
_ENDED = -1  # exit status of a worker that was ended at its deadline
_MOST_PROCESSES = 20  # that take each other's place

Launch = Callable[[Phase, int, float], int]  # phase, share and deadline to exit status


@dataclass(frozen=True)
class Run:
    """One run of the command.

    Attributes:
        device: whose clock counts; nothing is launched on it here.
        sizes: of the work.
        out: folder of the results.
        budget: seconds.
        launch: starts a worker and waits for its end.
        together: whether the processes of a phase run at once.
    """

    device: Device
    sizes: Sizes
    out: Path
    budget: float
    launch: Launch
    together: bool = False

    def phases(self, phases: Sequence[Phase], say: Callable[[str], None] = print) -> None:
        """All of them, in order."""
        began = self.device.now()
        for phase in phases:
            deadline = began + phase.end * self.budget / FULL
            say(f"{self.device.now() - began:6.1f} s  {phase.name}, until {deadline - began:.0f} s")
            shares = range(phase.processes)
            if self.together:
                with ThreadPoolExecutor(phase.processes) as pool:
                    list(pool.map(partial(self.supervise, phase, deadline), shares))
            else:
                for share in shares:
                    self.supervise(phase, deadline, share)
        say(f"{self.device.now() - began:6.1f} s  done")

    def supervise(self, phase: Phase, deadline: float, share: int) -> None:
        """One share of a phase, with as many processes as it takes."""
        table = Table(self.out / f"{phase.name}.csv", phase.columns)
        journal = journal_of(self.out, phase, share)
        for _ in range(_MOST_PROCESSES):
            status = self.launch(phase, share, deadline)
            if status == DONE:
                return
            state = journal.read()
            if status == _ENDED:
                if state.item:
                    table.add(state.item, FAILED, "not over at the end of its phase", side=state.side)
                    journal.lost(state.item, "")
                break
            if status != LOST:
                table.add(state.item or phase.name, FAILED, _death(status), side=state.side)
                if not state.item:
                    break  # it died outside of any item, and would again
                journal.lost(state.item, state.side)
        over = journal.read().over
        for item in share_of(phase, share, self.device, self.sizes):
            if item.name not in over:
                table.add(item.name, SKIPPED, OUT_OF_TIME)


def in_this_process(device: Device, sizes: Sizes, out: Path) -> Launch:
    """For a pretended device, whose clock no other process would see."""
    return lambda phase, share, deadline: work(phase, share, device, sizes, out, deadline)


def in_processes(device: Device, out: Path, command: Sequence[str]) -> Launch:
    """Starts ``command --worker PHASE SHARE DEADLINE``, and ends it a little after the deadline."""

    def launch(phase: Phase, share: int, deadline: float) -> int:
        log = out / "journals" / f"{phase.name}.{share}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*command, "--out", str(out), "--worker", phase.name, str(share), repr(deadline)],
                cwd=ROOT,
                stdout=output,
                stderr=output,
                start_new_session=True,  # so that what it starts ends with it
            )
            try:
                return process.wait(max(0.0, deadline + _GRACE - device.now()))
            except subprocess.TimeoutExpired:
                return _ENDED
            finally:
                _end(process)

    return launch


def own_command() -> list[str]:
    """How a worker of the real command is started."""
    return [sys.executable, "-m", "benchmarks.gpu"]


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _death(status: int) -> str:
    if status < 0:
        return f"the process was ended by signal {signal.Signals(-status).name}"
    return f"the process ended with status {status}"
