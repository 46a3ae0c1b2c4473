"""Rows, their file and their pictures."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmarks._measure import Timing
from benchmarks._results import AGAIN, COMPILED, EAGER, OURS, Record
from benchmarks.gpu.cases import Case

_COLOURS = {EAGER: "#4477aa", COMPILED: "#ee9944", OURS: "#228833"}


def make_rows(
    case: Case, timings: dict[str, Timing], peaks: dict[str, int | None], copy: float, conditions: dict[str, str]
) -> list[Record]:
    """One row a side: time, ratio to ours, bytes a second and their share of the copy's, peak memory, conditions."""
    ours = timings[OURS].median if OURS in timings else None
    rows = []
    for side, timing in timings.items():
        moved = None if case.traffic is None else case.traffic / timing.median
        rows.append(
            {
                "work": case.name,
                "phase": case.phase,
                "side": side,
                "median_us": f"{timing.median * 1e6:.2f}",
                "q1_us": f"{timing.q1 * 1e6:.2f}",
                "q3_us": f"{timing.q3 * 1e6:.2f}",
                "rounds": str(timing.rounds),
                "ratio_to_ours": "" if ours is None else f"{timing.median / ours:.3f}",
                "bytes_per_s": "" if moved is None else f"{moved:.4g}",
                "share_of_copy": "" if moved is None else f"{moved / copy:.3f}",
                "peak_bytes": "" if peaks[side] is None else str(peaks[side]),
                "copy_bytes_per_s": f"{copy:.4g}",
                **conditions,
            }
        )
    return rows


def draw_ratios(rows: Sequence[Record]) -> Figure:
    """How many times faster ours is than each other side."""
    return _bars(rows, (EAGER, COMPILED), "ratio_to_ours", "time of the other side / ours", "%.1fx")


def draw_bandwidth(rows: Sequence[Record]) -> Figure:
    """Share of the measured copy's bandwidth that each side reaches."""
    return _bars(rows, (OURS, EAGER, COMPILED), "share_of_copy", "bytes a second / those of a copy", "%.2f")


def _bars(rows: Sequence[Record], sides: Sequence[str], column: str, label: str, form: str) -> Figure:
    works = list(dict.fromkeys((row["work"], row["phase"]) for row in rows if row[column]))
    height = 0.8 / len(sides)
    figure = Figure(figsize=(10.0, 1.6 + 0.5 * len(works)), layout="constrained")
    axes = figure.subplots()
    for index, side in enumerate(sides):
        found = [(works.index((r["work"], r["phase"])), r) for r in rows if r["side"] == side and r[column]]
        places = [place + (index - (len(sides) - 1) / 2) * height for place, _ in found]
        bars = axes.barh(places, [float(row[column]) for _, row in found], height, color=_COLOURS[side], label=side)
        axes.bar_label(bars, fmt=form, padding=3, fontsize=8)
    axes.axvline(1, color="0.3", linewidth=1)
    axes.set_yticks(range(len(works)), [", ".join(work) for work in works])
    axes.invert_yaxis()
    axes.set_xlabel(label)
    first = rows[0]
    figure.suptitle(f"{first['device']}, {first['runtime']}, torch {first['torch']}, {first['date']}", fontsize=9)
    axes.legend(frameon=False)
    return figure


def disturbed(rows: Sequence[Record], tolerance: float) -> list[str]:
    """The works whose self-check, ours against ours, did not hold."""
    return [
        f"{row['work']}, {row['phase']}: {row['ratio_to_ours']}"
        for row in rows
        if row["side"] == AGAIN and abs(float(row["ratio_to_ours"]) - 1) > tolerance
    ]
