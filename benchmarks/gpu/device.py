"""The machine that is measured: its clocks, its memory; and one that is pretended, for the tests of all the rest."""

from __future__ import annotations

import time
from typing import Protocol

import torch

_CYCLES = 20_000_000  # of the calibration: some ten milliseconds
_L2 = 128 << 20  # where torch does not say how large the cache is


class Event(Protocol):
    """A point in the work of the device."""

    def record(self) -> None: ...
    def synchronize(self) -> None: ...
    def elapsed_time(self, end: Event) -> float: ...


class Device:
    """The CUDA or ROCm device of this process."""

    is_gpu = True
    kind = "cuda"

    def __init__(self) -> None:
        self.torch = torch.device(self.kind)
        self._scratch: torch.Tensor | None = None
        self._cycles_per_second = 0.0

    def now(self) -> float:
        """Seconds of a clock that all processes of the machine share."""
        return time.monotonic()

    def synchronize(self) -> None:
        """Waits for everything that was launched."""
        torch.cuda.synchronize()

    def alive(self) -> bool:
        """Whether the device still works for this process: after a fault in a kernel it never does again."""
        try:
            self.synchronize()
            return bool(torch.ones(1, device=self.torch).item() == 1)
        except RuntimeError:
            return False

    def event(self) -> Event:
        """An event with a time."""
        return torch.cuda.Event(enable_timing=True)

    def flush(self) -> None:
        """Overwrites the L2 cache, so that no side finds its inputs there because of what ran before it."""
        if self._scratch is None:
            size = getattr(torch.cuda.get_device_properties(self.torch), "L2_cache_size", 0) or _L2
            self._scratch = torch.empty(2 * size, dtype=torch.int8, device=self.torch)
        self._scratch.zero_()

    def cover(self, seconds: float) -> None:
        """Keeps the device busy for about so long, while the host prepares the launches that are measured."""
        if not self._cycles_per_second:
            start, end = self.event(), self.event()
            start.record()
            torch.cuda._sleep(_CYCLES)
            end.record()
            end.synchronize()
            self._cycles_per_second = _CYCLES / (1e-3 * start.elapsed_time(end))
        torch.cuda._sleep(int(seconds * self._cycles_per_second))

    def reset_memory(self) -> int:
        """Begins a measurement of memory; bytes in use by now."""
        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_allocated())

    def peak_memory(self) -> int:
        """Most bytes in use since :meth:`reset_memory`."""
        return int(torch.cuda.max_memory_allocated())

    def forget(self) -> None:
        """Gives cached memory back."""
        torch.cuda.empty_cache()


class _PretendedEvent:
    def __init__(self, device: PretendedDevice) -> None:
        self._device, self.at = device, 0.0

    def record(self) -> None:
        self.at = self._device.now()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: _PretendedEvent) -> float:
        return 1e3 * (end.at - self.at)


class PretendedDevice(Device):
    """The CPU in place of a device, with a clock that moves by one tick whenever it is read. No time means anything.

    All the code above it runs as on a device.
    """

    is_gpu = False
    kind = "cpu"

    def __init__(self, tick: float = 1e-3) -> None:
        super().__init__()
        self._tick, self._now = tick, 0.0

    def now(self) -> float:
        """Pretended seconds."""
        self._now += self._tick
        return self._now

    def synchronize(self) -> None:
        """Nothing is pending."""

    def event(self) -> Event:
        """An event on the pretended clock."""
        return _PretendedEvent(self)

    def flush(self) -> None:
        """There is no cache to speak of."""

    def cover(self, seconds: float) -> None:
        """There is nothing to cover."""
        self._now += seconds

    def reset_memory(self) -> int:
        """None is counted."""
        return 0

    def peak_memory(self) -> int:
        """None is counted."""
        return 0

    def forget(self) -> None:
        """None is cached."""
