"""What a run is made of: phases of items, and what an item is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.device import Device
from benchmarks.gpu.journal import Journal
from benchmarks.gpu.rows import FAILED, OK, Table, reason
from benchmarks.gpu.sizes import Sizes


class DeviceLostError(RuntimeError):
    """A fault in a kernel of a side: nothing more runs on the device in this process."""

    def __init__(self, side: str) -> None:
        super().__init__(f"the device is lost after {side}")
        self.side = side


@dataclass(frozen=True)
class Context:
    """What an item is given.

    Attributes:
        device: what it runs on.
        sizes: how large its work is.
        out: folder of the results.
        table: where its rows go.
        journal: what is being done, for the process that watches this one.
        deadline: of the phase, on the clock of ``device``.
        lost: the sides, by item, that ended a process before.
    """

    device: Device
    sizes: Sizes
    out: Path
    table: Table
    journal: Journal
    deadline: float
    lost: Mapping[str, frozenset[str]]

    def time_left(self) -> float:
        """Seconds until the deadline of the phase."""
        return self.deadline - self.device.now()

    @contextmanager
    def side(self, item: str, name: str, **values: object) -> Iterator[None]:
        """Work for one side: an error becomes a row, and the next side runs.

        Raises:
            DeviceLostError: the device is lost for this process.
        """
        self.journal.side(item, name)
        try:
            yield
        except Exception as error:
            self.table.add(item, FAILED, reason(error), side=name, **values)
            if not self.device.alive():
                raise DeviceLostError(name) from error
        finally:
            self.journal.side(item, "")

    def may_run(self, item: str, side: str) -> bool:
        """Whether that side has not ended a process before."""
        return side not in self.lost.get(item, frozenset())

    def add(self, item: str, **values: object) -> None:
        """A row of what was found."""
        self.table.add(item, OK, **values)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Item:
    """A piece of a phase; it adds its rows itself."""

    name: str
    run: Callable[[Context], None]


@dataclass(frozen=True)
class Phase:
    """A part of the run.

    Attributes:
        name: also that of its table.
        columns: of its table, beside the common ones.
        items: given the device and the sizes; the same in every process.
        end: seconds from the start of a run of 560 seconds by which it ends.
        processes: that share its items.
    """

    name: str
    columns: Sequence[str]
    items: Callable[[Device, Sizes], list[Item]]
    end: float
    processes: int = 1
