"""The pictures of a run, as matplotlib figures that need no display."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

_COLOURS = {"error": "#b3261e", "nll": "#1f5fa8"}
_TITLES = {"error": "Validation: classification error", "nll": "Validation: negative log-likelihood"}
_UNITS = {"error": "error (share of examples)", "nll": "-log p(x) (nats per example)"}


def images(x: Tensor, shape: tuple[int, ...], levels: int, title: str) -> Figure:
    """A square grid of ``x (N, prod(shape))``, grey (or colour) range fixed to ``0..levels-1``.

    Values outside that range, which samples may have, are drawn as its ends.
    """
    columns = math.isqrt(len(x) - 1) + 1
    rows = -(-len(x) // columns)
    sheet = _contact_sheet(x.detach().cpu().numpy().reshape(len(x), *shape), rows, columns, fill=levels - 1)
    height, width = sheet.shape[:2]
    figure = Figure(figsize=(6.0, 5.2 * height / width + 0.4), layout="compressed")
    axes = figure.subplots()
    if sheet.ndim == 3:
        axes.imshow(np.clip(sheet / (levels - 1), 0, 1), interpolation="nearest")
    else:
        grey = axes.imshow(sheet, cmap="gray", vmin=0, vmax=levels - 1, interpolation="nearest")
        figure.colorbar(grey, ax=axes, label="grey value", shrink=0.5, ticks=[0, (levels - 1) / 2, levels - 1])
    axes.set_title(title)
    axes.set_axis_off()
    return figure


def curve(values: Sequence[float], best: int, kind: str) -> Figure:
    """One validation figure (``kind`` ``"error"`` or ``"nll"``) by epoch, with the chosen epoch marked."""
    epochs = np.arange(1, len(values) + 1)
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.plot(epochs, values, color=_COLOURS[kind], linewidth=1.6, marker="." if len(values) < 40 else None)
    _mark(axes, best, values[best], f"{values[best]:.1%}" if kind == "error" else f"{values[best]:.1f} nats")
    axes.set_xlabel("epoch")
    axes.set_ylabel(_UNITS[kind])
    axes.set_title(_TITLES[kind])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if kind == "error":
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _mark(axes: Axes, epoch: int, value: float, text: str) -> None:
    axes.axvline(epoch + 1, color="0.6", linewidth=1.0, linestyle="--", zorder=0)
    label = f"chosen: epoch {epoch + 1} (lowest validation loss), {text}"
    axes.plot([epoch + 1], [value], "o", color="black", markersize=6, label=label, linestyle="none")


def _contact_sheet(tiles: np.ndarray, rows: int, columns: int, fill: float, gap: int = 1) -> np.ndarray:
    """Tiles ``(N, H, W[, C])`` side by side with a gap in the colour ``fill``; a last dimension of 1 is dropped."""
    if tiles.ndim == 4 and tiles.shape[3] == 1:
        tiles = tiles[..., 0]
    height, width = tiles.shape[1] + gap, tiles.shape[2] + gap
    sheet = np.full((rows * height - gap, columns * width - gap, *tiles.shape[3:]), float(fill))
    for index, tile in enumerate(tiles):
        top, left = (index // columns) * height, (index % columns) * width
        sheet[top : top + tiles.shape[1], left : left + tiles.shape[2]] = tile
    return sheet
