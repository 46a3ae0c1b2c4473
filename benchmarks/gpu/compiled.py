"""torch.compile of whole models: plain PyTorch's Glow, and ours without and with its CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.glow import sides as glow_sides
from benchmarks.glow.side import Side, training_step
from benchmarks.gpu.device import Device
from benchmarks.gpu.item import Context, Item
from benchmarks.gpu.operators import microseconds
from benchmarks.gpu.sizes import Sizes, Step
from benchmarks.gpu.steps import images
from benchmarks.gpu.timing import Piece, interleave, warm_up

COLUMNS = ("compile_s", "device_us", "device_q1_us", "device_q3_us", "host_us", "wall_us", "rounds", "images_per_s")
_MODES = {"ours": ("default", "reduce-overhead"), "eager": ("default",)}


def items(device: Device, sizes: Sizes) -> list[Item]:
    """A library and mode each; a compilation takes most of the time."""
    return [
        Item(f"{library}, {mode}", partial(_measure, library, mode))
        for library, modes in _MODES.items()
        for mode in modes
    ]


def _measure(library: str, mode: str, context: Context) -> None:
    step = context.sizes.profiled
    item = f"{library}, {mode}"
    torch.compiler.reset()
    run = _compiled(library, mode, step, images(step, context.device), context.device.is_gpu)
    began = context.device.now()
    run()
    context.device.synchronize()
    compile_s = context.device.now() - began
    piece = Piece(lambda _: run())
    covers = {item: warm_up(context.device, piece)}
    found = interleave(context.device, {item: piece}, covers, context.sizes.rounds)[item]
    context.add(
        item,
        side=f"torch.compile of {library}",
        compile_s=compile_s,
        images_per_s=step.batch / found.wall.median,
        **microseconds(found),
    )


def _compiled(library: str, mode: str, step: Step, x: Tensor, real: bool) -> Callable[[], Tensor]:
    torch.manual_seed(0)
    built: Side = glow_sides.build(library + ("-bf16" if step.bf16 else ""), step.glow)
    built.model.to(x.device).train()
    with torch.no_grad():
        built.loss(built.prepared(x))
    if real:  # a pretended device has nothing to compile for
        if library == "ours":  # one step a level is one compilation; the whole flow would be a graph of minutes
            for level in built.model.levels:
                for one in level.steps:
                    one.compile(dynamic=False, mode=mode)
        else:
            built.model.compile(dynamic=False, mode=mode)  # forward(); log_prob calls the model
    return training_step(built, x)
