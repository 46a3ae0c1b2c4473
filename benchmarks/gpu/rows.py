"""The tables of a run: a row is in the file as soon as it is known, and a failure is a row as well."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

COMMON = ("item", "side", "status", "note", "seconds")
OK, FAILED, SKIPPED = "ok", "failed", "skipped"
_LONGEST_NOTE = 400


class Table:
    """A CSV file to which several processes append.

    Args:
        path: the file; it is begun with its header where it is not there yet.
        columns: beside :data:`COMMON`.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.columns = (*COMMON, *columns)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append([self.columns])

    def add(self, item: str, status: str = OK, note: str = "", **values: object) -> None:
        """One row; what is not given stays empty.

        Raises:
            ValueError: a column that the table does not have.
        """
        row: Mapping[str, object] = {"item": item, "status": status, "note": short(note), **values}
        unknown = [name for name in row if name not in self.columns]
        if unknown:
            raise ValueError(f"columns: got {unknown}, expected some of {self.columns}")
        self._append([[_text(row.get(name, "")) for name in self.columns]])

    def _append(self, lines: Sequence[Sequence[str]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        with self.path.open("ab", buffering=0) as file:  # one write a row: appends of other processes fall between
            file.write(text.getvalue().encode())
            os.fsync(file.fileno())


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a table; none where the file is missing."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def short(note: object) -> str:
    """A note on one line."""
    text = " ".join(str(note).split())
    return text if len(text) <= _LONGEST_NOTE else text[:_LONGEST_NOTE] + " ..."


def reason(error: BaseException) -> str:
    """What went wrong, with the kind of the error."""
    return short(f"{type(error).__name__}: {error}")


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
