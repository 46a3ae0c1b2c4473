"""What an experiment gives back: tables with published figures beside its own, pictures, and what to know of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

OURS = "this run"


@dataclass(frozen=True)
class Column:
    """A figure of a table.

    Attributes:
        key: by which rows hold their value.
        heading: what it is, with its unit.
        form: format specification of its numbers.
    """

    key: str
    heading: str
    form: str = ".3f"


@dataclass(frozen=True)
class Row:
    """Figures of one model.

    Attributes:
        label: which model or setting.
        values: numbers or text by the keys of the columns; what is missing stays empty.
        source: whose figures they are: ``OURS``, or where they were published.
    """

    label: str
    values: Mapping[str, float | str | None]
    source: str = OURS

    def cell(self, column: Column) -> str:
        """The text of a cell."""
        value = self.values.get(column.key)
        return "" if value is None else value if isinstance(value, str) else format(value, column.form)


@dataclass(frozen=True)
class Table:
    """Rows in the order they are shown in; put a published row beside the one it is to be compared with."""

    title: str
    columns: list[Column]
    rows: list[Row]
    heading: str = ""

    @property
    def header(self) -> list[str]:
        """The texts of the head line."""
        return [self.heading, "source", *(column.heading for column in self.columns)]

    def cells(self) -> list[list[str]]:
        """The texts of each row."""
        return [[row.label, row.source, *(row.cell(column) for column in self.columns)] for row in self.rows]


@dataclass(frozen=True)
class Result:
    """The outcome of an experiment.

    Attributes:
        tables: at least one.
        pictures: by their name, without suffix.
        conditions: sentences on what the figures hold for whatever the machine: data, model, steps, conventions.
        shortfalls: sentences on what the budget did not reach, or what differs from the published experiment.
        record: further content of the JSON file.
    """

    tables: list[Table]
    pictures: Mapping[str, Figure]
    conditions: list[str] = field(default_factory=list)
    shortfalls: list[str] = field(default_factory=list)
    record: Mapping[str, Any] = field(default_factory=dict)
