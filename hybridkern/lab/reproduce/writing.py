"""A result as text and files: Markdown, JSON and PNG, each there as a whole or not at all."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable
from rich.text import Text

from hybridkern.lab.recipes.files import replacing, write_sealed_json
from hybridkern.lab.recipes.pictures import save_figure
from hybridkern.lab.reproduce.result import Result, Table


def write(result: Result, name: str, summary: str, folder: Path, facts: dict[str, Any]) -> list[Path]:
    """Writes ``NAME.md``, the pictures and, last, ``results.json`` into ``folder``.

    Args:
        result: of the experiment ``name``.
        name, summary: of the experiment.
        folder: exists.
        facts: budget, seed and versions for the JSON file.

    Returns:
        The paths written.
    """
    pictures = [save_figure(figure, folder / f"{stem}.png") for stem, figure in result.pictures.items()]
    table = folder / f"{name}.md"
    with replacing(table) as temporary:
        temporary.write_text(markdown(result, name, summary, pictures), encoding="utf-8")
    write_sealed_json(folder / "results.json", as_json(result, name) | facts)
    return [table, *pictures, folder / "results.json"]


def markdown(result: Result, name: str, summary: str, pictures: list[Path]) -> str:
    """The page of a result."""
    blocks = [f"# {name}", summary]
    for table in result.tables:
        lines = [table.header, ["---"] * 2 + ["---:"] * len(table.columns), *table.cells()]
        rows = "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)
        blocks += [f"## {table.title}", rows]
    blocks += [f"![{path.stem}]({path.name})" for path in pictures]
    for title, sentences in (("Conditions", result.conditions), ("Limitations", result.shortfalls)):
        if sentences:
            blocks += [f"## {title}", "\n".join(f"- {sentence}" for sentence in sentences)]
    return "\n\n".join(blocks) + "\n"


def as_json(result: Result, name: str) -> dict[str, Any]:
    """The content of ``results.json``; a number that is not finite is written as text, for JSON has none."""
    tables = [
        {
            "title": table.title,
            "columns": {column.key: column.heading for column in table.columns},
            "rows": [
                {"label": row.label, "source": row.source, "values": {k: _plain(v) for k, v in row.values.items()}}
                for row in table.rows
            ],
        }
        for table in result.tables
    ]
    return {
        "experiment": name,
        "tables": tables,
        "conditions": result.conditions,
        "shortfalls": result.shortfalls,
        "record": dict(result.record),
    }


def _plain(value: float | str | None) -> float | str | None:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def for_console(table: Table) -> RichTable:
    """A table for the terminal."""
    shown = RichTable(title=table.title, title_justify="left")
    for index, text in enumerate(table.header):
        shown.add_column(text, justify="left" if index < 2 else "right")
    for cells in table.cells():
        shown.add_row(*map(Text, cells))
    return shown
