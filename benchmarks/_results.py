"""The file of results: one line a benchmark and side."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "cpu-operators.csv"
UNVERIFIED = ROOT / ".bench" / "cpu-operators.csv"

OURS, AGAIN, EAGER, COMPILED, FLOOR = "ours", "ours again", "eager", "torch.compile", "torch.add"


@dataclass(frozen=True)
class Row:
    """One side of one benchmark, everything as text, as the file holds it.

    Attributes:
        benchmark: the work.
        side: ``"ours"``, ``"ours again"`` (the self-check), ``"eager"``, ``"torch.compile"``, ``"torch.add"`` (floor).
        median_us, q1_us, q3_us: microseconds a call, median and quartiles over ``rounds`` rounds.
        ratio_to_ours: this side's median by that of ours: how many times faster ours is. For the floor, which moves
            the bytes that ours must move, it is the share of its bandwidth that ours reaches.
        bytes_per_s: of the bytes that the work must read and write at least; empty where no bound is stated.
        target: the least ratio aimed at, empty if there is none.
        threads, cpu, instruction_set, torch, date: the conditions.
    """

    benchmark: str
    side: str
    median_us: str
    q1_us: str
    q3_us: str
    rounds: str
    ratio_to_ours: str
    bytes_per_s: str
    target: str
    threads: str
    cpu: str
    instruction_set: str
    torch: str
    date: str


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Replaces the file at once: it is the old one or the new one, never a part."""
    header = [field.name for field in fields(Row)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", newline="", dir=path.parent, prefix=path.name, delete=False
    ) as file:
        writer = csv.DictWriter(file, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    publish(Path(file.name), path)


def publish(temporary: Path, path: Path) -> None:
    """Moves a finished temporary file into its place, readable as other files are."""
    temporary.chmod(0o644)
    os.replace(temporary, path)


def read_rows(path: Path = RESULTS) -> list[Row]:
    """The rows of a file that :func:`write_rows` wrote, in its order."""
    with path.open(encoding="utf-8", newline="") as file:
        return [Row(**line) for line in csv.DictReader(file)]


def by_benchmark(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """``{benchmark: {side: row}}`` in the order of the file."""
    grouped: dict[str, dict[str, Row]] = {}
    for row in rows:
        grouped.setdefault(row.benchmark, {})[row.side] = row
    return grouped


def missed(row: Row) -> bool:
    """Whether a row has a target and falls short of it."""
    return bool(row.target) and float(row.ratio_to_ours) < float(row.target)
