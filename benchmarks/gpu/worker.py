"""The items of one phase, one after the other, in this process."""

from __future__ import annotations

from pathlib import Path

from benchmarks.gpu.device import Device
from benchmarks.gpu.item import Context, DeviceLostError, Item, Phase
from benchmarks.gpu.journal import Journal
from benchmarks.gpu.rows import FAILED, SKIPPED, Table, reason
from benchmarks.gpu.sizes import Sizes

DONE, LOST = 0, 70  # exit statuses; with LOST the device is gone for this process, and another one goes on
OUT_OF_TIME = "no time was left"


def journal_of(out: Path, phase: Phase, share: int) -> Journal:
    """The journal of one of the processes that share a phase."""
    return Journal(out / "journals" / f"{phase.name}.{share}.txt")


def share_of(phase: Phase, share: int, device: Device, sizes: Sizes) -> list[Item]:
    """The items of one of the processes that share a phase."""
    return phase.items(device, sizes)[share :: phase.processes]


def work(phase: Phase, share: int, device: Device, sizes: Sizes, out: Path, deadline: float) -> int:
    """Runs what is left of its share; an item that begins after the deadline is a row that says so.

    Returns:
        :data:`DONE` or :data:`LOST`.
    """
    journal = journal_of(out, phase, share)
    state = journal.read()
    table = Table(out / f"{phase.name}.csv", phase.columns)
    context = Context(device, sizes, out, table, journal, deadline, state.lost)
    for item in share_of(phase, share, device, sizes):
        if item.name in state.over:
            continue
        journal.begin(item.name)
        if context.time_left() <= 0:
            table.add(item.name, SKIPPED, OUT_OF_TIME)
            journal.end(item.name)
            continue
        try:
            item.run(context)
        except DeviceLostError as error:
            journal.lost(item.name, error.side)
            return LOST
        except Exception as error:
            table.add(item.name, FAILED, reason(error))
            if not device.alive():
                journal.lost(item.name, "")
                return LOST
        journal.end(item.name)
        device.forget()
    return DONE
