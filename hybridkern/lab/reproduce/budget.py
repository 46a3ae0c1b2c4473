"""The wall time that an experiment may take for training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from hybridkern.lab.recipes.errors import RecipeError


class Budget:
    """A number of minutes, running from the making of the object.

    Args:
        minutes: finite and positive.
        clock: seconds since some moment.

    Raises:
        RecipeError: ``minutes`` is not finite and positive.
    """

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not (math.isfinite(minutes) and minutes > 0):
            raise RecipeError(f"--minutes: got {minutes}, expected a finite, positive number")
        self.minutes = minutes
        self._clock = clock
        self._start = clock()
        self._processor = time.process_time()

    @property
    def spent(self) -> float:
        """Minutes since the start."""
        return (self._clock() - self._start) / 60

    @property
    def left(self) -> float:
        """Minutes that are left, never below 0."""
        return max(self.minutes - self.spent, 0.0)

    @property
    def on_processor(self) -> str:
        """A sentence on the processor time of this process since the start, which is less on a shared machine.

        Training, scoring and drawing are in it; what an interrupted process had before is not.
        """
        minutes = (time.process_time() - self._processor) / 60
        return (
            f"Processor time of this run, including evaluation: {minutes:.1f} minutes, in {self.spent:.1f} minutes of "
            "wall time; on a busy machine a run gets less processor time than wall time."
        )

    def share(self, runs: int) -> float:
        """Minutes for each of so many runs that share the whole budget evenly."""
        return self.minutes / runs
