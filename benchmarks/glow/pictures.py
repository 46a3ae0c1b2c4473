"""Pictures of whole Glow steps, and of what the memory modes keep."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmarks._results import Record
from benchmarks.glow.step_table import title


def draw_steps(records: Sequence[Record]) -> Figure:
    """Bars: images per second, trained and sampled, of every side."""
    figure = Figure(figsize=(9.0, 1.4 + 0.35 * len(records)), layout="constrained")
    for axes, column, what in zip(
        figure.subplots(1, 2, sharey=True), ("images_per_s", "sampled_per_s"), ("trained", "sampled"), strict=True
    ):
        speeds = [float(record[column] or 0) for record in records]
        colours = ["#4477aa" if record["side"].startswith("ours") else "#bbbbbb" for record in records]
        axes.bar_label(axes.barh(range(len(records)), speeds, color=colours), fmt="%.0f", padding=3, fontsize=8)
        axes.set_yticks(range(len(records)), [title(record["side"]).replace("`", "") for record in records])
        axes.set_xlabel(f"images per second, {what}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.12)
    axes.invert_yaxis()
    figure.suptitle(_conditions(records[0], f"{records[0]['steps']} steps a level"), fontsize=8)
    return figure


def draw_memory(records: Sequence[Record]) -> Figure:
    """Lines: the peak of every memory mode by the number of steps a level; a point for a side measured once."""
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.subplots()
    peaks = [record for record in records if record["kind"] == "peak"]
    for side in dict.fromkeys(record["side"] for record in peaks):
        found = sorted((int(r["steps"]), int(r["peak_bytes"]) / 2**20) for r in peaks if r["side"] == side)
        axes.plot(*zip(*found, strict=True), marker="o", label=side)
    axes.set_yscale("log")
    axes.set_xlabel("steps a level")
    axes.set_ylabel("peak of activations, MiB")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.suptitle(_conditions(records[0], records[0]["precision"]), fontsize=8)
    return figure


def _conditions(first: Record, more: str) -> str:
    return (
        f"{first['cpu']}, {first['threads']} threads, torch {first['torch']}, {first['date']}; {first['shape']}, "
        f"{first['levels']} levels, {more}, {first['hidden']} hidden, batch {first['batch']}"
    )
