"""The pictures of the measurements: ``python -m benchmarks.plot`` draws them into ``docs/images``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._bars import mark
from benchmarks._results import (
    COMPILED,
    COUPLING_NETWORK,
    EAGER,
    OPERATORS,
    RESULTS,
    ROOT,
    Row,
    by_benchmark,
    publish,
    read_csv,
    read_rows,
)
from benchmarks.glow import memory_table, pictures, step_table
from benchmarks.integrations import picture as integrations_picture
from benchmarks.integrations import table as integrations_table

IMAGES = ROOT / "docs" / "images"
_COLOURS = {EAGER: "#4477aa", COMPILED: "#ee9944"}
_LABELS = {EAGER: "eager PyTorch", COMPILED: "torch.compile"}
_HEIGHT = 0.36


def draw(rows: Sequence[Row]) -> Figure:
    """Bars: how many times faster ours is than each side; black ticks: the targets."""
    grouped = by_benchmark(rows)
    figure = Figure(figsize=(9.0, 1.6 + 0.45 * len(grouped)), layout="constrained")
    axes = figure.subplots()
    sides = [side for side in _LABELS if any(side in found for found in grouped.values())]
    for index, side in enumerate(sides):
        _bars(axes, list(grouped.values()), side, (index - (len(sides) - 1) / 2) * _HEIGHT)
    axes.axvline(1, color="0.3", linewidth=1)
    axes.set_yticks(range(len(grouped)), list(grouped))
    axes.invert_yaxis()
    other = "the other side" if len(sides) > 1 else _LABELS[sides[0]]
    axes.set_xlabel(f"time of {other} / ours (black: target)")
    first = rows[0]
    figure.suptitle(
        f"{first.cpu}, {first.threads} threads, {first.instruction_set}, torch {first.torch}, {first.date}", fontsize=9
    )
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if len(sides) > 1:
        axes.legend(frameon=False)
    return figure


def _bars(axes: Axes, groups: Sequence[dict[str, Row]], side: str, offset: float) -> None:
    found = [(place + offset, sides[side]) for place, sides in enumerate(groups) if side in sides]
    places, ratios = [place for place, _ in found], [float(row.ratio_to_ours) for _, row in found]
    axes.barh(places, ratios, _HEIGHT, color=_COLOURS[side], label=_LABELS[side])
    for place, row in found:
        mark(axes, place, _HEIGHT, float(row.ratio_to_ours), float(row.target) if row.target else None)


# By file of results: the picture, and what draws it from the file's path.
PICTURES: dict[str, tuple[str, Callable[[Path], Figure]]] = {
    OPERATORS: ("benchmarks.png", lambda path: draw(read_rows(path))),
    COUPLING_NETWORK: ("coupling-network.png", lambda path: draw(read_rows(path))),
    step_table.FILE: ("glow-step.png", lambda path: pictures.draw_steps(read_csv(path))),
    memory_table.FILE: ("glow-memory.png", lambda path: pictures.draw_memory(read_csv(path))),
    integrations_table.FILE: ("integrations.png", lambda path: integrations_picture.draw(read_csv(path))),
}


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG, replacing the old one at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=path.suffix, delete=False) as file:
        figure.savefig(file, dpi=130, format="png")
    publish(Path(file.name), path)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of results")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder of the pictures")
    options = parser.parse_args(arguments)
    for file, (name, make) in PICTURES.items():
        source = options.results / file
        if not source.exists():
            print(f"no picture {name}: nothing has been measured in full yet ({source} does not exist)")
            continue
        save(make(source), options.out / name)
        print(f"picture: {options.out / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
