"""The table of whole training steps of Glow, from the records of one run."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import _markdown
from benchmarks._measure import SELF_TOLERANCE, self_check
from benchmarks._results import Record

FILE = "glow-step.csv"
_HEADER = (
    "side",
    "step",
    "images/s",
    "against best peer",
    "outside networks",
    "optimizer",
    "peak memory of a step",
    "sampled images/s",
    "against best peer",
)
_LIBRARIES = {"freia": "FrEIA", "eager": "eager Glow", "ours": "`flows.Glow`"}


def render(records: Sequence[Record]) -> str:
    """The table in Markdown and, under it, the conditions."""
    return "\n".join([_markdown.table(_HEADER, map(_cells, records)), "", *_conditions(records)])


def _cells(record: Record) -> list[str]:
    def cell(name: str, form: str, factor: float = 1) -> str:
        return form.format(float(record[name]) * factor) if record[name] else ""

    step = float(record["shares_step_s"] or 1)
    return [
        title(record["side"]),
        cell("step_s", "{:.0f} ms", 1e3),
        cell("images_per_s", "{:.1f}"),
        cell("ratio", "{:.2f}x"),
        cell("share_outside", "{:.1f} %", 100),
        cell("shares_optimizer_s", "{:.1f} %", 100 / step),
        cell("peak_bytes", "{:,.0f} MiB", 2**-20),
        cell("sampled_per_s", "{:.1f}"),
        cell("sampling_ratio", "{:.2f}x"),
    ]


def title(side: str) -> str:
    """The name of a side as the table prints it."""
    library, *rest = side.split("-")
    if library == "eager" and "bf16" in rest:
        rest.append("channels_last")
    return ", ".join([_LIBRARIES.get(library, library), *rest])


def self_checks(records: Sequence[Record]) -> dict[str, float]:
    """What was timed twice: one median by the other."""
    return {
        f"{what} of {record['side']}": float(record[f"{what}_again"])
        for what in ("step", "sampling")
        for record in records
        if record[f"{what}_again"]
    }


def _conditions(records: Sequence[Record]) -> list[str]:
    first = records[0]
    unit = f", {first['bf16_unit']}" if first["bf16_unit"] else ""
    checks = self_checks(records)
    lines = [
        f"{first['cpu']}{unit}, {first['threads']} threads, torch {first['torch']}, {first['date']}. {first['batch']} "
        f"images of {first['shape']},",
        f"{first['levels']} levels of {first['steps']} steps, {first['hidden']} hidden channels. Medians of "
        f"{first['rounds']} rounds in one process, alternating between the sides.",
    ]
    if checks:
        own = ", ".join(f"{what} {ratio:.2f}" for what, ratio in checks.items())
        lines.append(f"Against itself (must be 1 +- {SELF_TOLERANCE:.2f}): {own}.")
    disturbed = [what for what, ratio in checks.items() if not self_check(ratio)]
    return [*lines, *([f"DISTURBED, not to be used: {'; '.join(disturbed)}."] if disturbed else [])]
