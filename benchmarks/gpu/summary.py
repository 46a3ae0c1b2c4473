"""What a run found, in one text: wrong results first, then the steps, then the operators."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from benchmarks._measure import SELF_TOLERANCE
from benchmarks._results import AGAIN, write_text
from benchmarks.gpu.plan import PHASES
from benchmarks.gpu.rows import FAILED, OK, read

_STEPS = ("side", "device_us", "wall_us", "host_us", "images_per_s", "ratio_to_ours", "launches", "peak_bytes")
_OPERATORS = ("phase", "side", "device_us", "wall_us", "ratio_to_ours", "share_of_copy")

Rows = list[dict[str, str]]


def write(out: Path) -> int:
    """Writes ``env.json`` and ``summary.md``; the exit status of the command: 1 where a kernel is wrong."""
    tables = {phase.name: read(out / f"{phase.name}.csv") for phase in PHASES}
    facts = {row["item"]: row["value"] if row["status"] == OK else row["note"] for row in tables["environment"]}
    write_text(out / "env.json", json.dumps(facts, indent=1) + "\n")
    write_text(out / "summary.md", text(tables))
    print(f"results: {out / 'summary.md'}, and a table a phase beside it")
    return int(any(row["status"] == FAILED for row in tables["correctness"]))


def text(tables: dict[str, Rows]) -> str:
    """The summary."""
    lines = ["# What was measured", ""]
    for name, rows in tables.items():
        counts = Counter(row["status"] for row in rows)
        lines.append(f"- {name}: " + (", ".join(f"{n} {status}" for status, n in counts.items()) or "no row"))
    failures = [(name, row) for name, rows in tables.items() for row in rows if row["status"] == FAILED]
    lines += ["", "## Failures", ""]
    lines += [f"- {name}: {row['item']}, {row['side']}: {row['note']}" for name, row in failures] or ["none"]
    lines += ["", "## Disturbed: ours against itself is not 1", ""]
    lines += [f"- {line}" for rows in tables.values() for line in disturbed(rows)] or ["none"]
    for title, name, columns in (("Steps", "steps", _STEPS), ("Operators", "operators", _OPERATORS)):
        lines += ["", f"## {title}", ""] + _by_item(tables.get(name, []), columns)
    return "\n".join(lines) + "\n"


def disturbed(rows: Rows) -> list[str]:
    """The works whose self-check, ours against ours, did not hold."""
    return [
        f"{row['item']} {row.get('phase', '')}: {row['ratio_to_ours']}"
        for row in rows
        if row["side"] == AGAIN and row["status"] == OK and abs(float(row["ratio_to_ours"]) - 1) > SELF_TOLERANCE
    ]


def _by_item(rows: Rows, columns: tuple[str, ...]) -> list[str]:
    lines: list[str] = []
    for item in dict.fromkeys(row["item"] for row in rows if row["status"] == OK):
        lines += [f"### {item}", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        found = [row for row in rows if row["item"] == item and row["status"] == OK]
        lines += ["| " + " | ".join(row[column] for column in columns) + " |" for row in found] + [""]
    return lines
