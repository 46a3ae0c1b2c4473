"""One training step of each side under the profiler: where the time goes, kernel by kernel."""

from __future__ import annotations

from functools import partial

from benchmarks.gpu.device import Device
from benchmarks.gpu.item import Context, Item
from benchmarks.gpu.kernels import launched
from benchmarks.gpu.sizes import Sizes, Step
from benchmarks.gpu.steps import build, images

COLUMNS = ("kernel", "count", "microseconds", "share")
_SIDES = ("ours", "ours hybrid graphed", "eager", "normflows")
_MOST = 40  # kernels of a side


def items(device: Device, sizes: Sizes) -> list[Item]:
    """A side each: batch 64 and the largest one in bfloat16."""
    chosen = [sizes.profiled, *(step for step in sizes.steps if step.batch == 256 and step.bf16)]
    return [Item(f"{side}, {step.name}", partial(_profile, side, step)) for step in chosen for side in _SIDES]


def _profile(side: str, step: Step, context: Context) -> None:
    item = f"{side}, {step.name}"
    run = build(side, step, images(step, context.device))
    for _ in range(4):
        run()
    trace = context.out / "traces" / f"{side.replace(' ', '-')}-{step.batch}.json.gz"
    trace.parent.mkdir(exist_ok=True)
    kernels = launched(context.device, run, trace)
    total = sum(kernel.microseconds for kernel in kernels)
    for kernel in kernels[:_MOST]:
        share = f"{kernel.microseconds / total:.4f}" if total else ""
        context.add(
            item,
            side=side,
            kernel=kernel.name[:120],
            count=kernel.count,
            microseconds=kernel.microseconds,
            share=share,
        )
