"""What one run found: table for people, JSON for programs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks._measure import SELF_TOLERANCE, Timing, self_check
from benchmarks._results import publish
from benchmarks.glow.measure import AGAIN, Shares
from benchmarks.glow.sides import is_peer

_HEADER = (
    "side",
    "parameters in networks + elsewhere",
    "step",
    "images/s",
    "against best peer",
    "outside networks",
    "optimizer",
    "peak memory",
    "sampled images/s",
    "against best peer",
)


@dataclass(frozen=True)
class Line:
    """One side; ``None`` where it was not measured.

    Attributes:
        side: its name.
        parameters_in_networks, parameters_elsewhere: counts of what is trained.
        step: seconds a training step.
        images_per_s: batch size by the median of ``step``.
        ratio: images/s by those of the best peer.
        shares: where the time of a step goes.
        peak_bytes: memory of a step beside weights, gradients and optimizer state.
        sampling: seconds that drawing a batch takes.
        sampled_per_s, sampling_ratio: as for training.
    """

    side: str
    parameters_in_networks: int
    parameters_elsewhere: int
    step: Timing | None = None
    images_per_s: float | None = None
    ratio: float | None = None
    shares: Shares | None = None
    peak_bytes: int | None = None
    sampling: Timing | None = None
    sampled_per_s: float | None = None
    sampling_ratio: float | None = None


def rates(timings: dict[str, Timing], batch: int) -> dict[str, tuple[float, float | None]]:
    """Images a second of every side, and by those of the best peer (``None`` without peers)."""
    speed = {name: batch / timing.median for name, timing in timings.items() if not name.endswith(AGAIN)}
    best = max((value for name, value in speed.items() if is_peer(name)), default=None)
    return {name: (value, None if best is None else value / best) for name, value in speed.items()}


def self_ratios(timings: dict[str, Timing]) -> dict[str, float]:
    """Of the side that was timed twice: one median by the other."""
    twice = [name.removesuffix(AGAIN) for name in timings if name.endswith(AGAIN)]
    return {name: timings[name + AGAIN].median / timings[name].median for name in twice}


def render(lines: Sequence[Line], conditions: dict[str, object], self_checks: dict[str, float]) -> str:
    """The table in Markdown and, under it, the conditions."""
    text = ["| " + " | ".join(_HEADER) + " |", "|" + "---|" * len(_HEADER)]
    for line in lines:
        shares = line.shares
        cells = [
            line.side,
            f"{line.parameters_in_networks:,} + {line.parameters_elsewhere:,}",
            _cell(line.step and line.step.median * 1e3, "{:.0f} ms"),
            _cell(line.images_per_s, "{:.1f}"),
            _cell(line.ratio, "{:.2f}x"),
            _cell(shares and 100 * shares.share_outside, "{:.1f} %"),
            _cell(shares and 100 * shares.optimizer / shares.step, "{:.1f} %"),
            _cell(line.peak_bytes and line.peak_bytes / 2**20, "{:,.0f} MiB"),
            _cell(line.sampled_per_s, "{:.1f}"),
            _cell(line.sampling_ratio, "{:.2f}x"),
        ]
        text.append("| " + " | ".join(cells) + " |")
    text += ["", ", ".join(f"{key} {value}" for key, value in conditions.items())]
    for what, ratio in self_checks.items():
        verdict = "" if self_check(ratio) else "; DISTURBED, not to be used"
        text.append(f"{what} against itself: {ratio:.3f} (must be 1 +- {SELF_TOLERANCE:.2f}){verdict}")
    return "\n".join(text)


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def write_json(path: Path, lines: Sequence[Line], conditions: dict[str, object], self_checks: dict[str, float]) -> None:
    """Replaces the file at once."""
    content = {"conditions": conditions, "against_itself": self_checks, "sides": [_entry(line) for line in lines]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=path.name, delete=False) as file:
        json.dump(content, file, indent=1)
        file.write("\n")
    publish(Path(file.name), path)


def _entry(line: Line) -> dict[str, object]:
    entry = {key: value for key, value in asdict(line).items() if value is not None}
    if line.shares is not None:
        entry["shares"] = asdict(line.shares) | {"share_outside": line.shares.share_outside}
    return entry
