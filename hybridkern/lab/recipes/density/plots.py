"""Pictures of the density of a table, as matplotlib figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridkern.lab.plots import bin_edges
from hybridkern.lab.recipes.vectors.plots import COLOURS, finish

_MOST = 7
_POINTS = 2000
_BINS = 40


def corner(data: np.ndarray, samples: np.ndarray, names: Sequence[str]) -> Figure:
    """Rows ``(N, D)`` of data and samples against each other, in the data's units: histograms and pairs of columns.

    Of more than seven columns the first seven are shown. The axes leave out the thousandth at each end of the data.
    """
    count = min(data.shape[1], _MOST)
    figure = Figure(figsize=(2.0 * count + 1.6, 2.0 * count + 0.8), layout="constrained")
    panels = figure.subplots(count, count, squeeze=False)
    ends = [_ends(data[:, index]) for index in range(count)]
    sets = ((data, COLOURS[1], "data"), (samples, COLOURS[0], "samples"))
    for row in range(count):
        for column in range(count):
            axes = panels[row, column]
            if column > row:
                axes.set_axis_off()
                continue
            for values, colour, label in sets:
                if row == column:
                    bins = bin_edges(*ends[row], _BINS)
                    axes.hist(values[:, row], bins, density=True, alpha=0.5, color=colour, label=label)
                else:
                    shown = values[:_POINTS]
                    axes.scatter(
                        shown[:, column], shown[:, row], s=4, alpha=0.35, color=colour, linewidth=0, rasterized=True
                    )
            _name(axes, row, column, count, names, ends)
    left, right = panels[0, 0].get_legend_handles_labels()
    figure.legend(left, right, loc="upper right", frameon=False)
    if data.shape[1] > count:
        figure.suptitle(f"the first {count} of {data.shape[1]} columns")
    return figure


def _ends(column: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(column, (0.001, 0.999))
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _name(axes: Axes, row: int, column: int, count: int, names: Sequence[str], ends: list[tuple[float, float]]) -> None:
    axes.set_xlim(*ends[column])
    if row == column:
        axes.set_yticks([])
    else:
        axes.set_ylim(*ends[row])
    axes.tick_params(labelsize=6, labelbottom=row == count - 1, labelleft=column == 0 and row > 0)
    if row == count - 1:
        axes.set_xlabel(names[column], fontsize=8)
    if column == 0 and row > 0:
        axes.set_ylabel(names[row], fontsize=8)


def training(trained: Mapping[str, Sequence[float]], nll: Sequence[float], best: int) -> Figure:
    """``-log p(x)`` of training and of the validation part by epoch, with the kept epoch marked."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    values = np.asarray(nll)
    marker = "." if len(values) < 40 else None
    axes.plot(trained["epoch"], trained["loss"], color=COLOURS[3], marker=".", label="training, as trained on")
    axes.plot(np.arange(1, len(values) + 1), values, color=COLOURS[0], marker=marker, label="validation")
    axes.axvline(best + 1, color=COLOURS[3], linestyle="--", label=f"kept: epoch {best + 1}")
    seen = np.concatenate([values, trained["loss"]])
    low, high = seen.min(), np.quantile(seen, 0.98)  # the first epochs would flatten all others
    if high > low:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.set_xlabel("epoch")
    axes.set_ylabel("$-\\log p(x)$, nats")
    finish(axes, "upper right")
    return figure
