"""What one run found, and its record in the file of results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks._measure import Timing
from benchmarks._results import Record
from benchmarks.glow.measure import AGAIN, Shares
from benchmarks.glow.sides import is_peer


@dataclass(frozen=True)
class Line:
    """One side; ``None`` where it was not measured.

    Attributes:
        side: its name.
        parameters_in_networks, parameters_elsewhere: counts of what is trained.
        step: seconds a training step.
        step_again: where a side was timed twice: one median by the other.
        images_per_s: batch size by the median of ``step``.
        ratio: images/s by those of the best peer.
        shares: where the time of a step goes.
        peak_bytes: memory of a step beside weights, gradients and optimizer state.
        sampling: seconds that drawing a batch takes.
        sampling_again, sampled_per_s, sampling_ratio: as for training.
    """

    side: str
    parameters_in_networks: int
    parameters_elsewhere: int
    step: Timing | None = None
    step_again: float | None = None
    images_per_s: float | None = None
    ratio: float | None = None
    shares: Shares | None = None
    peak_bytes: int | None = None
    sampling: Timing | None = None
    sampling_again: float | None = None
    sampled_per_s: float | None = None
    sampling_ratio: float | None = None

    def record(self, conditions: Mapping[str, object]) -> Record:
        """All of it as text, times in seconds, and the conditions; empty where nothing was measured."""
        shares = self.shares
        values = {
            "side": self.side,
            "parameters_in_networks": self.parameters_in_networks,
            "parameters_elsewhere": self.parameters_elsewhere,
            **_columns("step", self.step),
            "step_again": self.step_again,
            "images_per_s": self.images_per_s,
            "ratio": self.ratio,
            "shares_step_s": shares and shares.step,
            "shares_outside_s": shares and shares.outside,
            "shares_optimizer_s": shares and shares.optimizer,
            "share_outside": shares and shares.share_outside,
            "peak_bytes": self.peak_bytes,
            **_columns("sampling", self.sampling),
            "sampling_again": self.sampling_again,
            "sampled_per_s": self.sampled_per_s,
            "sampling_ratio": self.sampling_ratio,
            **conditions,
        }
        return {name: "" if value is None else str(value) for name, value in values.items()}


def _columns(what: str, timing: Timing | None) -> dict[str, float | int | None]:
    return {
        f"{what}_s": timing and timing.median,
        f"{what}_q1_s": timing and timing.q1,
        f"{what}_q3_s": timing and timing.q3,
        f"{what}_rounds": timing and timing.rounds,
        f"{what}_calls": timing and timing.calls,
    }


def rates(timings: dict[str, Timing], batch: int) -> dict[str, tuple[float, float | None]]:
    """Images a second of every side, and by those of the best peer (``None`` without peers)."""
    speed = {name: batch / timing.median for name, timing in timings.items() if not name.endswith(AGAIN)}
    best = max((value for name, value in speed.items() if is_peer(name)), default=None)
    return {name: (value, None if best is None else value / best) for name, value in speed.items()}


def self_ratios(timings: dict[str, Timing]) -> dict[str, float]:
    """Of the side that was timed twice: one median by the other."""
    twice = [name.removesuffix(AGAIN) for name in timings if name.endswith(AGAIN)]
    return {name: timings[name + AGAIN].median / timings[name].median for name in twice}
