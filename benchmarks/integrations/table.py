"""The table of accelerated models of other libraries, from ``integrations.csv``."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import _markdown
from benchmarks._measure import SELF_TOLERANCE
from benchmarks._results import Record
from benchmarks.integrations.works import AGAIN, LIBRARY

FILE, ONE_THREAD = "integrations.csv", "integrations-one-thread.csv"


def checks(records: Sequence[Record]) -> dict[str, float]:
    """Of every work that is timed, the library's model by itself: 1 on a quiet machine."""
    return {record["work"]: float(record["ratio"]) for record in records if record["side"] == AGAIN}


def render(records: Sequence[Record]) -> str:
    """Markdown: a line for each way of accelerating a work, and the conditions."""
    base = {record["work"]: record for record in records if record["side"] == LIBRARY}
    lines = [
        (record["work"], record["side"], _amount(base[record["work"]]), _amount(record), _ratio(record))
        for record in records
        if record["side"] not in (LIBRARY, AGAIN)
    ]
    found = checks(records)
    missed = sum(_missed(record) for record in records)
    first, rounds = records[0], [int(record["rounds"]) for record in records if record["rounds"]]
    timed = f"medians of {min(rounds)} rounds or more in one process, alternating between the sides; " if rounds else ""
    threads = f"{first['threads']} thread{'s' * (first['threads'] != '1')}"
    text = (
        f"{first['cpu']}, {threads}, kernels in {first['instruction_set']}, torch {first['torch']}, "
        f"{', '.join(dict.fromkeys(record['date'] for record in records))}. Forward and backward pass, {timed}"
        "activations are counted at the allocator in a fresh process."
    )
    if found:
        text += f" The library against itself: {min(found.values()):.2f} to {max(found.values()):.2f}"
        text += f" (must be 1 +- {SELF_TOLERANCE})."
    header = ("model", "way", "library", "accelerated", "ratio")
    return f"{_markdown.table(header, lines)}\n\n{text}\nTargets missed: {missed}."


def _missed(record: Record) -> bool:
    return bool(record["target"]) and float(record["ratio"]) < float(record["target"])


def _amount(record: Record) -> str:
    if record["kind"] == "peak":
        return f"{int(record['peak_bytes']) / 2**20:.0f} MiB"
    seconds = float(record["median_s"])
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _ratio(record: Record) -> str:
    ratio = f"{float(record['ratio']):.2f}x"
    if not record["target"]:
        return ratio
    return f"{ratio} (target {float(record['target']):.1f}x{', **missed**' if _missed(record) else ''})"
