"""The table of small models over sizes, from ``integrations-sizes.csv``."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import _markdown
from benchmarks._measure import SELF_TOLERANCE
from benchmarks._results import Record

FILE = "integrations-sizes.csv"
STEP, EVALUATION, CONTROL = "step", "evaluation", "library again"


def disturbed(record: Record) -> bool:
    """Whether a row of the library against itself came out unequal, beyond what its interval allows."""
    low, high = float(record["low"]), float(record["high"])
    return record["kind"] == CONTROL and (low > 1 + SELF_TOLERANCE or high < 1 - SELF_TOLERANCE)


def is_slower(record: Record) -> bool:
    """Whether even the upper end of the interval stays under 1."""
    return record["kind"] != CONTROL and float(record["high"]) < 1


def render(records: Sequence[Record]) -> str:
    """Markdown: one line per model and kind, least and largest ratio over the batches per number of dimensions; then
    every row that is slower, and the conditions.
    """
    shown = [record for record in records if record["kind"] != CONTROL]
    dims = sorted({int(record["dims"]) for record in shown})
    batches = sorted({int(record["batch"]) for record in shown})
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in shown:
        groups.setdefault((record["model"], record["kind"]), []).append(record)
    lines = [(model, kind, *(_range(group, dim) for dim in dims)) for (model, kind), group in groups.items()]
    first, rounds = records[0], [int(record["rounds"]) for record in shown]
    slower = [record for record in shown if is_slower(record)]
    controls = [float(record["ratio"]) for record in records if record["kind"] == CONTROL]
    text = (
        f"{first['cpu']}, {first['threads']} thread{'s' * (first['threads'] != '1')}, kernels in "
        f"{first['instruction_set']}, torch {first['torch']}, "
        f"{', '.join(dict.fromkeys(record['date'] for record in records))}. Least and largest ratio of times, library "
        f"/ accelerated, over batches of {', '.join(map(str, batches))}; medians of {min(rounds)} to {max(rounds)} "
        "rounds, alternating between the sides."
    )
    if controls:
        text += f" The library against itself: {min(controls):.2f} to {max(controls):.2f}."
    text += f"\nRows whose 95 % interval stays under 1: {len(slower)} of {len(shown)}"
    text += f" ({'; '.join(map(_named, slower))})." if slower else "."
    header = ("model", "pass", *(f"{dim} dims" for dim in dims))
    return f"{_markdown.table(header, lines)}\n\n{text}"


def _range(group: Sequence[Record], dim: int) -> str:
    ratios = [float(record["ratio"]) for record in group if int(record["dims"]) == dim]
    return f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else ""


def _named(record: Record) -> str:
    place = f"{record['model']}, {record['kind']}, {record['dims']} dims, batch {record['batch']}"
    return f"{place}: {float(record['ratio']):.2f}, {float(record['low']):.2f} to {float(record['high']):.2f}"
