"""The phases of a run, in order, and until when each of them has time."""

from __future__ import annotations

from benchmarks.gpu import compiled, correctness, counters, environment, operators, profile, steps
from benchmarks.gpu.item import Phase

# What matters most comes first: a machine that stops early has left the numbers that decide most.
PHASES = (
    Phase("environment", environment.COLUMNS, environment.items, 100),
    Phase("correctness", correctness.COLUMNS, correctness.items, 170, processes=8),
    Phase("operators", operators.COLUMNS, operators.items, 250),
    Phase("steps", steps.COLUMNS, steps.items, 410),
    Phase("profile", profile.COLUMNS, profile.items, 445),
    Phase("counters", counters.COLUMNS, counters.items, 480),
    Phase("compiled", compiled.COLUMNS, compiled.items, 550),
)


def phase_of(name: str) -> Phase:
    """The phase of that name.

    Raises:
        ValueError: there is none.
    """
    for phase in PHASES:
        if phase.name == name:
            return phase
    raise ValueError(f"phase: got {name!r}, expected one of {', '.join(phase.name for phase in PHASES)}")
