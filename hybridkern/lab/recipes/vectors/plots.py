"""The pictures of a run on vectors, as matplotlib figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from hybridkern.lab.plots import bin_edges

COLOURS = ("#1f5fa8", "#b3261e", "#3b7d3a", "0.45")
_BINS = 80
_POINTS = 4000
_PANELS = 8


def finish(axes: Axes, legend: Any = "best") -> None:
    """Grid, open frame and, where anything has a label, a legend."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc=legend, framealpha=0.9, edgecolor="none")


def training(curves: Mapping[str, Sequence[float]], best: int, regression: bool) -> Figure:
    """Validation error and ``-log p(x)`` by epoch, the kept epoch marked."""
    figure = Figure(figsize=(10.0, 4.0), layout="constrained")
    panels = figure.subplots(1, 2)
    error = np.asarray(curves["val_error"])
    drawn = (
        ("RMSE", np.sqrt(error)) if regression else ("error, share", error),
        ("nats", np.asarray(curves["val_nll"])),
    )
    for axes, (unit, values), title in zip(panels, drawn, ("Prediction", "$-\\log p(x)$"), strict=True):
        axes.plot(np.arange(1, len(values) + 1), values, color=COLOURS[0], marker="." if len(values) < 40 else None)
        axes.axvline(best + 1, color=COLOURS[3], linestyle="--", label=f"kept: epoch {best + 1}")
        axes.set_title(f"{title}, validation part")
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit)
        # the first epochs of an untrained model would flatten all others
        low, high = values.min(), np.quantile(values, 0.98)
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low)) if high > low else None
        finish(axes, "upper right")
    return figure


def draw_log_densities(axes: Axes, sets: Mapping[str, Tensor]) -> None:
    """Histograms of ``log p(x)`` on one axis, which leaves out the thousandth at each end."""
    ends = [np.quantile(values.numpy(), (0.001, 0.999)) for values in sets.values()]
    bins = bin_edges(min(low for low, _ in ends), max(high for _, high in ends), _BINS)
    for (name, values), colour in zip(sets.items(), COLOURS, strict=False):
        label = f"{name}, mean {values.mean().item():.2f}"
        axes.hist(values.numpy().clip(bins[0], bins[-1]), bins, density=True, alpha=0.55, color=colour, label=label)
    axes.set_xlabel("$\\log p(x)$, nats")
    axes.set_ylabel("density of rows")
    finish(axes)


def log_densities(sets: Mapping[str, Tensor]) -> Figure:
    """A figure of :func:`draw_log_densities`."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    draw_log_densities(figure.subplots(), sets)
    return figure


def samples(drawn: Tensor, real: Tensor | None = None, how: str = "") -> Figure:
    """Samples ``(N, D)`` beside data: histograms of each dimension, or points where there are two.

    ``how`` is what their title says of how they were drawn.
    """
    sets = [(f"samples of the model{how}", drawn)] + ([] if real is None else [("test part", real[:_POINTS])])
    if drawn.shape[1] == 2:
        figure = Figure(figsize=(5.0 * len(sets), 4.4), layout="constrained")
        for axes, (name, x), colour in zip(
            figure.subplots(1, len(sets), squeeze=False)[0], sets, COLOURS, strict=False
        ):
            axes.scatter(x[:, 0].numpy(), x[:, 1].numpy(), s=4, color=colour, alpha=0.6)
            axes.set_title(name)
            finish(axes)
        return figure
    count = min(drawn.shape[1], _PANELS)
    columns = min(count, 4)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.2 * columns + 1, 2.8 * rows), layout="constrained")
    for dim, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        if dim >= count:
            axes.set_axis_off()
            continue
        low, high = np.quantile(np.concatenate([x[:, dim].numpy() for _, x in sets]), (0.001, 0.999))
        bins = bin_edges(low, high, _BINS // 2 + 1)
        for (name, x), colour in zip(sets, COLOURS, strict=False):
            shown = x[:, dim].numpy().clip(bins[0], bins[-1])
            axes.hist(shown, bins, density=True, alpha=0.5, color=colour, label=name if dim == 0 else None)
        axes.set_title(f"dimension {dim + 1}")
        finish(axes)
    return figure
