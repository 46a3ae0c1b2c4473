"""The table of a file of operators: ours beside the eager formula, ``torch.compile`` and the memory bandwidth."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import _markdown
from benchmarks._measure import SELF_TOLERANCE, self_check
from benchmarks._results import AGAIN, COMPILED, EAGER, FLOOR, OURS, Row, by_benchmark, missed

_COLUMNS = {
    EAGER: "against eager",
    COMPILED: "against `torch.compile`",
    FLOOR: "share of `torch.add`'s bytes/s",
}


def render(rows: Sequence[Row]) -> str:
    """The table in Markdown, and under it the conditions. A side that no benchmark has gets no column."""
    sides = [side for side in _COLUMNS if any(row.side == side for row in rows)]
    header = ["work", "hybridkern", *(_COLUMNS[side] for side in sides)]
    lines = [
        [name, _markdown.time_cell(found[OURS].median_us), *(_ratio(found.get(side)) for side in sides)]
        for name, found in by_benchmark(rows).items()
    ]
    return "\n".join([_markdown.table(header, lines), "", *_conditions(rows)])


def _ratio(row: Row | None) -> str:
    if row is None:
        return ""
    unit = "" if row.side == FLOOR else "x"
    text = f"{float(row.ratio_to_ours):.2f}{unit}"
    if not row.target:
        return text
    return f"{text} (target {row.target}{unit}{', **missed**' if missed(row) else ''})"


def _conditions(rows: Sequence[Row]) -> list[str]:
    first = rows[0]
    own = [float(row.ratio_to_ours) for row in rows if row.side == AGAIN]
    disturbed = [row.benchmark for row in rows if row.side == AGAIN and not self_check(float(row.ratio_to_ours))]
    targets = [row for row in rows if row.target]
    span = f"{min(own):.2f} to {max(own):.2f} (must be 1 +- {SELF_TOLERANCE:.2f})"
    lines = [
        f"{first.cpu}, {first.threads} threads, kernels in {first.instruction_set}, torch {first.torch}, {first.date}.",
        f"Medians of {first.rounds} rounds in one process, alternating between the sides; a ratio above 1 means that",
        f"hybridkern is faster. The same function against itself: {span}.",
        f"Targets met: {sum(not missed(row) for row in targets)} of {len(targets)}.",
    ]
    if disturbed:
        lines.append(f"DISTURBED, not to be used: {'; '.join(disturbed)}.")
    return lines
