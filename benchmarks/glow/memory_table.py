"""The table of memory modes, from the records of ``python -m benchmarks.glow_memory``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import _markdown
from benchmarks._measure import SELF_TOLERANCE
from benchmarks._results import Record

FILE = "glow-memory.csv"
AGAIN = "store again"


@dataclass(frozen=True)
class Claim:
    """A quotient of two figures that should be small.

    Attributes:
        kind: ``"peak"`` or ``"time"``.
        side, steps: the numerator.
        against, against_steps: the denominator.
        most: what is aimed at.
    """

    kind: str
    side: str
    steps: int
    against: str
    against_steps: int
    most: float


CLAIMS = (
    Claim("peak", "invert", 64, "invert", 4, 1.1),
    Claim("peak", "recompute", 32, "store", 32, 1 / 8),
    Claim("peak", "invert", 32, "normflows", 32, 1 / 20),
    Claim("time", "recompute", 32, "store", 32, 1.35),
    Claim("time", "invert", 32, "store", 32, 1.5),
)


def render(records: Sequence[Record]) -> str:
    """The table in Markdown; under it the claims that its figures allow, and the conditions."""
    names = [name for name in dict.fromkeys(record["side"] for record in records) if name != AGAIN]
    peaks, times = _steps(records, "peak"), _steps(records, "time")
    header = ["", *(f"peak, {n} steps per level" for n in peaks), *(f"time, {n} steps" for n in times)]
    lines = [
        [
            f"`{name}`" if name != "normflows" else name,
            *(_cell(value(records, "peak", name, n), "{:,.1f} MiB", 2**-20) for n in peaks),
            *(_cell(value(records, "time", name, n), "{:.3g} s") for n in times),
        ]
        for name in names
    ]
    verdicts = [text for text in (verdict(records, claim) for claim in CLAIMS) if text is not None]
    return "\n".join(
        [_markdown.table(header, lines), "", *(f"- {text}" for text in verdicts), "", _conditions(records)]
    )


def value(records: Sequence[Record], kind: str, side: str, steps: int) -> float | None:
    """Peak bytes or median seconds, or ``None`` if they were not measured."""
    for record in records:
        if (record["kind"], record["side"], record["steps"]) == (kind, side, str(steps)):
            return float(record["peak_bytes" if kind == "peak" else "median_s"])
    return None


def verdict(records: Sequence[Record], claim: Claim) -> str | None:
    """The claim with its figure, in words; ``None`` where one of the two was not measured."""
    top = value(records, claim.kind, claim.side, claim.steps)
    bottom = value(records, claim.kind, claim.against, claim.against_steps)
    if top is None or bottom is None:
        return None
    base = f"{claim.against} at {claim.against_steps}" if claim.side != claim.against else str(claim.against_steps)
    missed = "" if top / bottom <= claim.most else ", **missed**"
    return (
        f"{claim.kind} of `{claim.side}` at {claim.steps} steps against {base}: {_fraction(top / bottom)} "
        f"(target at most {_fraction(claim.most)}{missed})"
    )


def _fraction(ratio: float) -> str:
    return f"{ratio:.3g}x" if ratio > 0.5 else f"1/{1 / ratio:.3g}"


def _steps(records: Sequence[Record], kind: str) -> list[int]:
    return sorted({int(record["steps"]) for record in records if record["kind"] == kind})


def _cell(found: float | None, form: str, factor: float = 1) -> str:
    return "" if found is None else form.format(found * factor)


def self_check_of(records: Sequence[Record], steps: int) -> float | None:
    """``store`` timed against itself."""
    again, store = value(records, "time", AGAIN, steps), value(records, "time", "store", steps)
    return None if again is None or store is None else again / store


def _conditions(records: Sequence[Record]) -> str:
    first = records[0]
    text = (
        f"{first['cpu']}, {first['threads']} threads, torch {first['torch']}, {first['date']}. Forward and backward "
        f"pass in {first['precision']},\n{first['batch']} x {first['shape']}, {first['levels']} levels, "
        f"{first['hidden']} hidden channels. Peaks are bytes at PyTorch's allocator."
    )
    times = _steps(records, "time")
    if not times:
        return text
    own = ", ".join(f"{self_check_of(records, n):.2f}" for n in times)
    rounds = next(record["rounds"] for record in records if record["kind"] == "time")
    return (
        f"{text} Times are\nmedians of {rounds} rounds in one process, alternating between the sides; `store` against "
        f"itself: {own} (must be 1 +- {SELF_TOLERANCE:.2f})."
    )
