"""Pictures of whole Glow steps."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmarks._results import Record
from benchmarks.glow.step_table import title


def draw_steps(records: Sequence[Record]) -> Figure:
    """Bars: images a second, trained and sampled, of every side."""
    figure = Figure(figsize=(9.0, 1.4 + 0.35 * len(records)), layout="constrained")
    for axes, column, what in zip(
        figure.subplots(1, 2, sharey=True), ("images_per_s", "sampled_per_s"), ("trained", "sampled"), strict=True
    ):
        speeds = [float(record[column] or 0) for record in records]
        colours = ["#4477aa" if record["side"].startswith("ours") else "#bbbbbb" for record in records]
        axes.bar_label(axes.barh(range(len(records)), speeds, color=colours), fmt="%.0f", padding=3, fontsize=8)
        axes.set_yticks(range(len(records)), [title(record["side"]).replace("`", "") for record in records])
        axes.set_xlabel(f"images a second, {what}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.12)
    axes.invert_yaxis()
    first = records[0]
    figure.suptitle(
        f"{first['cpu']}, {first['threads']} threads, torch {first['torch']}, {first['date']}; {first['shape']}, "
        f"{first['levels']} levels of {first['steps']} steps, {first['hidden']} hidden, batch {first['batch']}",
        fontsize=8,
    )
    return figure
