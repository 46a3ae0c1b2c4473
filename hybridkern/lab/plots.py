"""The pictures of a run, as matplotlib figures that need no display."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor

_COLOURS = {"error": "#b3261e", "nll": "#1f5fa8"}
_TITLES = {"error": "Validation error", "nll": "Validation negative log-likelihood"}
_UNITS = {"error": "error, share of examples", "nll": "-log p(x), nats per example"}
_PERCENTS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def images(x: Tensor, shape: tuple[int, ...], grey_levels: int, title: str) -> Figure:
    """A square grid of ``x (N, prod(shape))``, grey (or colour) range fixed to ``0..grey_levels-1``.

    Values outside that range, which samples may have, are drawn as its ends.
    """
    sheet = _grid(x, shape, grey_levels)
    height, width = sheet.shape[:2]
    figure = Figure(figsize=(6.0, 5.2 * height / width + 0.4), layout="compressed")
    axes = figure.subplots()
    draw_sheet(axes, sheet, grey_levels, title)
    if sheet.ndim == 2:
        figure.colorbar(
            axes.images[0], ax=axes, label="grey value", shrink=0.5, ticks=[0, (grey_levels - 1) / 2, grey_levels - 1]
        )
    return figure


def curve(values: Sequence[float], best: int, kind: str) -> Figure:
    """One validation figure (``kind`` ``"error"`` or ``"nll"``) by epoch, with the chosen epoch marked.

    Errors have a logarithmic axis where none of them is 0: they soon become small beside the first.
    """
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    _draw_curve(figure.subplots(), values, best, kind)
    return figure


def overview(
    real: Tensor,
    samples: Tensor,
    shape: tuple[int, ...],
    grey_levels: int,
    errors: Sequence[float],
    nlls: Sequence[float],
    best: int,
) -> Figure:
    """Real images, samples and both validation figures side by side; arguments as for the single plots."""
    figure = Figure(figsize=(14.0, 3.2), layout="constrained")
    panels = figure.subplots(1, 4, width_ratios=(1.0, 1.0, 1.2, 1.2))
    for axes, x, title in zip(
        panels, (real, samples), ("Real images, test part", "Samples from the model"), strict=False
    ):
        draw_sheet(axes, _grid(x, shape, grey_levels), grey_levels, title)
    for axes, values, kind in zip(panels[2:], (errors, nlls), ("error", "nll"), strict=True):
        _draw_curve(axes, values, best, kind)
    return figure


def draw_sheet(axes: Axes, sheet: np.ndarray, grey_levels: int, title: str) -> None:
    """Draws a sheet of images, without axes, in the range ``0..grey_levels-1``."""
    if sheet.ndim == 3:
        axes.imshow(np.clip(sheet / (grey_levels - 1), 0, 1), interpolation="nearest")
    else:
        axes.imshow(sheet, cmap="gray", vmin=0, vmax=grey_levels - 1, interpolation="nearest")
    axes.set_title(title)
    axes.set_axis_off()


def _draw_curve(axes: Axes, values: Sequence[float], best: int, kind: str) -> None:
    epochs = np.arange(1, len(values) + 1)
    axes.plot(epochs, values, color=_COLOURS[kind], linewidth=1.6, marker="." if len(values) < 40 else None)
    _mark(axes, best, values[best], f"{100 * values[best]:.1f} %" if kind == "error" else f"{values[best]:.1f} nats")
    axes.set_xlabel("epoch")
    axes.set_ylabel(_UNITS[kind])
    axes.set_title(_TITLES[kind])
    axes.margins(y=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    if kind == "error":
        _percent_axis(axes, min(values), max(values))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper right", framealpha=1.0, edgecolor="none", handletextpad=0.2)


def _percent_axis(axes: Axes, least: float, most: float) -> None:
    if least > 0:
        axes.set_yscale("log")
        shown = [tick for tick in _PERCENTS if least / 1.3 <= tick <= most * 1.3]
        axes.set_yticks(shown if len(shown) > 1 else sorted({*shown, least, most}))  # an axis has numbers
        axes.minorticks_off()
        axes.set_ylim(least / 1.3, most * 1.3)
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g} %"))


def _mark(axes: Axes, epoch: int, value: float, text: str) -> None:
    axes.axvline(epoch + 1, color="0.6", linewidth=1.0, linestyle="--", zorder=0)
    label = f"kept: epoch {epoch + 1}, {text}"
    axes.plot([epoch + 1], [value], "o", color="black", markersize=6, label=label, linestyle="none")


def _grid(x: Tensor, shape: tuple[int, ...], grey_levels: int) -> np.ndarray:
    """``x (N, prod(shape))`` as one sheet, as nearly square as its number allows."""
    columns = math.isqrt(len(x) - 1) + 1
    rows = -(-len(x) // columns)
    return contact_sheet(x.detach().cpu().numpy().reshape(len(x), *shape), rows, columns, fill=grey_levels - 1)


def bin_edges(low: float, high: float, count: int) -> list[float]:
    """``count`` ends of bins from ``low`` to ``high``, or about them where they are the same number."""
    if not low < high:
        low, high = low - 0.5, high + 0.5
    edges: list[float] = np.linspace(low, high, count).tolist()
    return edges


def contact_sheet(tiles: np.ndarray, rows: int, columns: int, fill: float, gap: int = 1) -> np.ndarray:
    """Tiles ``(N, H, W[, C])`` side by side with a gap in the colour ``fill``; a last dimension of 1 is dropped."""
    if tiles.ndim == 4 and tiles.shape[3] == 1:
        tiles = tiles[..., 0]
    height, width = tiles.shape[1] + gap, tiles.shape[2] + gap
    sheet = np.full((rows * height - gap, columns * width - gap, *tiles.shape[3:]), float(fill))
    for index, tile in enumerate(tiles):
        top, left = (index // columns) * height, (index % columns) * width
        sheet[top : top + tiles.shape[1], left : left + tiles.shape[2]] = tile
    return sheet
