"""The picture of accelerated models of other libraries."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmarks._bars import mark
from benchmarks._results import Record
from benchmarks.integrations.works import AGAIN, ALONE, LIBRARY


def draw(records: Sequence[Record]) -> Figure:
    """Bars: how many times faster, or smaller, each way makes a model; black ticks: the targets."""
    shown = [record for record in records if record["side"] not in (LIBRARY, AGAIN, ALONE)]
    figure = Figure(figsize=(9.0, 1.4 + 0.25 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(shown)), [float(record["ratio"]) for record in shown], color="#4477aa")
    for place, record in enumerate(shown):
        mark(axes, place, 0.8, float(record["ratio"]), float(record["target"]) if record["target"] else None)
    axes.set_yticks(range(len(shown)), [f"{record['work']}: {record['side']}" for record in shown], fontsize=8)
    axes.set_ylim(len(shown) - 0.4, -0.6)  # first line on top
    axes.axvline(1, color="0.3", linewidth=1)
    axes.set_xlabel("library / accelerated, in time or peak (black: target)")
    axes.spines[["top", "right"]].set_visible(False)
    first = records[0]
    figure.suptitle(f"{first['cpu']}, {first['threads']} threads, torch {first['torch']}, {first['date']}", fontsize=9)
    return figure
