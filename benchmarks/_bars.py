"""What the pictures with bars share."""

from __future__ import annotations

from matplotlib.axes import Axes


def mark(axes: Axes, place: float, height: float, ratio: float, target: float | None) -> None:
    """Writes a bar's ratio behind it, and behind the black tick of its target where there is one.

    Args:
        axes: with horizontal bars.
        place: of the bar's middle.
        height: of the bar.
        ratio: length of the bar.
        target: where to draw the tick.
    """
    if target is not None:
        axes.plot([target] * 2, [place - height / 2, place + height / 2], color="black", linewidth=2)
    end = ratio if target is None else max(ratio, target)
    axes.annotate(f"{ratio:.2f}x", (end, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.margins(x=0.08)
