"""The measured rows of README's first table, from the files of results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks import _markdown
from benchmarks._results import EAGER, OPERATORS, RESULTS, Row, read_csv, read_rows
from benchmarks.glow import memory_table, step_table

NAME = "headline"
_COUPLING = "affine_coupling glow (256,6,32,32), forward+backward"
_STEPS = 32
_PAGE = "docs/benchmarks.md"
_IMAGES = (
    "| MNIST against notMNIST, 12 minutes on one CPU core | 1.5 % test error, AUROC of p(x) 1.000 | "
    f"[images]({_PAGE}#images) |"
)


def render(folder: Path = RESULTS) -> str:
    """The table: what has not been measured has no row. The row on images is of a run that is not repeated."""
    header = ("what we measured", "result", "conditions")
    return "\n".join([_markdown.table(header, _rows(folder)), _IMAGES])


def _rows(folder: Path) -> Iterator[tuple[str, str, str]]:
    coupling = [row for row in _operators(folder) if row.benchmark == _COUPLING and row.side == EAGER]
    if coupling:
        gain = f"{float(coupling[0].ratio_to_ours):.1f} times as fast as eager PyTorch"
        yield "affine coupling, forward and backward", gain, f"[operators]({_PAGE}#operators)"
    steps = _steps(folder)
    if "ours" in steps:
        yield (
            "training step of a Glow in float32",
            f"{steps['ours']:.2f} times as fast as the best peer",
            f"[Glow]({_PAGE}#glow)",
        )
    if "ours-bf16" in steps:
        gain = f"{steps['ours-bf16']:.1f} times as fast as the best peer in float32"
        yield "the same with bfloat16 networks", gain, f"[Glow]({_PAGE}#glow)"
    if (folder / memory_table.FILE).exists():
        records = read_csv(folder / memory_table.FILE)
        ours, theirs = (memory_table.value(records, "peak", side, _STEPS) for side in ("invert", "normflows"))
        if ours and theirs:
            gain = f"{ours / 2**20:.1f} MiB instead of {theirs / 2**20:.0f} MiB in normflows"
            yield f"activations of a Glow with 3 x {_STEPS} steps", gain, f"[memory]({_PAGE}#glow)"


def _operators(folder: Path) -> list[Row]:
    return list(read_rows(folder / OPERATORS)) if (folder / OPERATORS).exists() else []


def _steps(folder: Path) -> dict[str, float]:
    path = folder / step_table.FILE
    return {record["side"]: float(record["ratio"]) for record in read_csv(path)} if path.exists() else {}
