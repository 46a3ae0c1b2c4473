"""The kernels that a piece of code launches: by torch's profiler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.device import Device


class Kernel(NamedTuple):
    """A kernel, how often it ran, and its time in all."""

    name: str
    count: int
    microseconds: float


def launched(device: Device, run: Callable[[], object], trace: Path | None = None) -> list[Kernel]:
    """The kernels of one run, the longest first; on a pretended device PyTorch's operators stand for them.

    Args:
        device: what ``run`` runs on, warm.
        run: the code.
        trace: where the profiler's trace goes.
    """
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.is_gpu else [])
    with profile(activities=activities) as found:
        run()
        device.synchronize()
    if trace is not None:
        found.export_chrome_trace(str(trace))
    wanted = DeviceType.CUDA if device.is_gpu else DeviceType.CPU
    rows = [event for event in found.key_averages() if event.device_type == wanted]
    spent = [event.self_device_time_total if device.is_gpu else event.self_cpu_time_total for event in rows]
    kernels = [Kernel(event.key, event.count, float(time)) for event, time in zip(rows, spent, strict=True)]
    return sorted(kernels, key=lambda kernel: -kernel.microseconds)
