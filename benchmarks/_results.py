"""The files of results: CSV, one line a benchmark and side, every line with the conditions it was measured under."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"  # what the documents speak of
UNVERIFIED = ROOT / ".bench"  # a part of a run, other settings, or a run that was disturbed
OPERATORS = "cpu-operators.csv"
COUPLING_NETWORK = "coupling-network.csv"
PARTS = "parts.csv"

OURS, AGAIN, EAGER, COMPILED, FLOOR = "ours", "ours again", "eager", "torch.compile", "torch.add"

Record = dict[str, str]


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


def write_csv(path: Path, records: Sequence[Mapping[str, str]]) -> None:
    """Replaces the file at once: it is the old one or the new one, never a part. All records have the same columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", newline="", dir=path.parent, prefix=path.name, delete=False
    ) as file:
        writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    publish(Path(file.name), path)


def write_text(path: Path, text: str) -> None:
    """Replaces a text file at once: it is the old one or the new one, never a part."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=path.name, delete=False) as file:
        file.write(text)
    publish(Path(file.name), path)


def publish(temporary: Path, path: Path) -> None:
    """Moves a finished temporary file into its place, readable as other files are."""
    temporary.chmod(0o644)
    os.replace(temporary, path)


def read_csv(path: Path) -> list[Record]:
    """The records of a file that :func:`write_csv` wrote, in its order."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """As :func:`write_csv`."""
    write_csv(path, [asdict(row) for row in rows])


def read_rows(path: Path) -> list[Row]:
    """The rows of a file that :func:`write_rows` wrote, in its order."""
    return [Row(**record) for record in read_csv(path)]


def by_benchmark(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """``{benchmark: {side: row}}`` in the order of the file."""
    grouped: dict[str, dict[str, Row]] = {}
    for row in rows:
        grouped.setdefault(row.benchmark, {})[row.side] = row
    return grouped


def missed(row: Row) -> bool:
    """Whether a row has a target and falls short of it."""
    return bool(row.target) and float(row.ratio_to_ours) < float(row.target)
