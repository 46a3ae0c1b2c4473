"""The picture of accelerated models of other libraries."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmarks._results import Record
from benchmarks.integrations.works import AGAIN, ALONE, LIBRARY


def draw(records: Sequence[Record]) -> Figure:
    """Bars: how many times faster, or smaller, each way makes a model; black ticks: the targets."""
    shown = [record for record in records if record["side"] not in (LIBRARY, AGAIN, ALONE)]
    figure = Figure(figsize=(9.0, 1.4 + 0.35 * len(shown)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(range(len(shown)), [float(record["ratio"]) for record in shown], color="#4477aa")
    axes.bar_label(bars, fmt="%.1fx", padding=3, fontsize=8)
    for place, record in enumerate(shown):
        if record["target"]:
            axes.plot([float(record["target"])] * 2, [place - 0.4, place + 0.4], color="black", linewidth=2)
    axes.set_yticks(range(len(shown)), [f"{record['work']}: {record['side']}" for record in shown], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="0.3", linewidth=1)
    axes.set_xlabel("library / accelerated, in time or peak (black: target)")
    axes.spines[["top", "right"]].set_visible(False)
    first = records[0]
    figure.suptitle(f"{first['cpu']}, {first['threads']} threads, torch {first['torch']}, {first['date']}", fontsize=9)
    return figure
