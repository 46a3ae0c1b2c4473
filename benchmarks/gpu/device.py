"""The machine that is measured: clocks, caches, memory, names."""

from __future__ import annotations

import datetime
import importlib.metadata
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks._measure import LEAST_ROUNDS, Timing

_WARM_UP = 3


@dataclass(frozen=True)
class Piece:
    """Something to time: ``run(prepare())``, of which only ``run`` is timed."""

    run: Callable[[Any], object]
    prepare: Callable[[], Any] = lambda: None


class Device:
    """A CUDA or ROCm device; or the CPU, on which only the code is tested and no time means anything.

    Args:
        name: ``"cuda"`` or ``"cpu"``.
        flush: whether the L2 cache is overwritten before each measurement, so that no side finds its inputs there
            because of what ran before it.
    """

    def __init__(self, name: str = "cuda", *, flush: bool = True) -> None:
        self.torch = torch.device(name)
        self.is_gpu = self.torch.type == "cuda"
        size = 0
        if flush:
            cache = getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 0) if self.is_gpu else 1 << 10
            size = 2 * (cache or 128 << 20)
        self._scratch = torch.empty(size, dtype=torch.int8, device=self.torch)

    def synchronize(self) -> None:
        """Waits for everything that was launched."""
        if self.is_gpu:
            torch.cuda.synchronize()

    def seconds(self, piece: Piece) -> float:
        """Time of one run, by events on the device.

        The overwriting of the cache is still going on when the work is launched, so the launches of short work are
        hidden behind it.
        """
        state = piece.prepare()
        self._scratch.zero_()
        if not self.is_gpu:
            began = time.perf_counter()
            piece.run(state)
            return time.perf_counter() - began
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        piece.run(state)
        end.record()
        end.synchronize()
        return 1e-3 * start.elapsed_time(end)

    def interleave(self, sides: Mapping[str, Piece], rounds: int) -> dict[str, Timing]:
        """Times every side once a round, in an order drawn anew each round; medians and quartiles.

        Raises:
            ValueError: too few rounds.
        """
        if rounds < LEAST_ROUNDS:
            raise ValueError(f"rounds: got {rounds}, expected at least {LEAST_ROUNDS}")
        for piece in sides.values():
            for _ in range(_WARM_UP):
                piece.run(piece.prepare())
        self.synchronize()
        times: dict[str, list[float]] = {name: [] for name in sides}
        order = list(sides)
        shuffle = random.Random(0).shuffle
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                times[name].append(self.seconds(sides[name]))
        return {name: _summary(found) for name, found in times.items()}

    def peak(self, piece: Piece) -> int | None:
        """Bytes that torch's allocator hands out at most during a run, beside what is there before it."""
        if not self.is_gpu:
            piece.run(piece.prepare())
            return None
        state = piece.prepare()
        self.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        piece.run(state)
        self.synchronize()
        return torch.cuda.max_memory_allocated() - before

    def copy_bandwidth(self, size: int, rounds: int) -> float:
        """Bytes a second, read and written, of a copy of ``size`` bytes on the device."""
        source = torch.ones(size, dtype=torch.int8, device=self.torch)
        target = torch.empty_like(source)
        timing = self.interleave({"copy": Piece(lambda _: target.copy_(source))}, rounds)["copy"]
        return 2 * size / timing.median

    def conditions(self) -> dict[str, str]:
        """Names and versions: columns of every row of results."""
        try:
            triton = importlib.metadata.version("triton")
        except importlib.metadata.PackageNotFoundError:
            triton = "none"
        return {
            "device": torch.cuda.get_device_name(0) if self.is_gpu else "cpu",
            "capability": ".".join(map(str, torch.cuda.get_device_capability(0))) if self.is_gpu else "",
            "driver": _driver() if self.is_gpu else "",
            "runtime": f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}",
            "torch": str(torch.__version__),
            "triton": triton,
            "l2": "overwritten before each measurement" if len(self._scratch) else "as it is",
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return ""


def _summary(times: list[float]) -> Timing:
    q1, median, q3 = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(median, q1, q3, len(times), 1)
