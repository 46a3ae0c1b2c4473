"""Whole training steps of Glow: ours in every memory mode and as one graph, plain PyTorch, normflows, FrEIA."""

from __future__ import annotations

import importlib.util
import sys
import types
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.glow import sides as glow_sides
from benchmarks.glow.side import training_step
from benchmarks.gpu.device import Device
from benchmarks.gpu.graphed import Step as Run
from benchmarks.gpu.graphed import graphed_step, plain_step
from benchmarks.gpu.item import Context, Item
from benchmarks.gpu.kernels import launched
from benchmarks.gpu.operators import microseconds
from benchmarks.gpu.sizes import Sizes, Step
from benchmarks.gpu.timing import Piece, interleave, peak_memory, warm_up

COLUMNS = (
    *("device_us", "device_q1_us", "device_q3_us", "host_us", "wall_us", "rounds", "images_per_s", "ratio_to_ours"),
    *("launches", "kernel_us", "peak_bytes", "loss"),
)
OURS, HYBRID, GRAPH = "ours", "ours hybrid", "ours hybrid graphed"
# The hybrid step has a head beside the flow; it is there for the graph of the same step.
SIDES = (OURS, "ours again", GRAPH, HYBRID, "eager", "ours recompute", "ours invert", "ours recompute graphed")
PEERS = ("normflows", "freia")


def items(device: Device, sizes: Sizes) -> list[Item]:
    """One item an architecture, batch and precision; its sides are timed in turn."""
    return [Item(step.name, partial(_measure, step)) for step in sizes.steps]


def build(side: str, step: Step, x: Tensor) -> Run:
    """One training step of that side, its model initialized from ``x``."""
    precision = "-bf16" if step.bf16 else ""
    library, *rest = side.removesuffix(" again").split()
    graph = "graphed" in rest or "hybrid" in rest
    memory = [word for word in rest if word in ("recompute", "invert")]
    torch.manual_seed(0)
    if library == "freia":
        lend_scipy()
    built = glow_sides.build("-".join([library + precision, *memory]), step.glow)
    built.model.to(x.device).train()
    with torch.no_grad():
        built.loss(built.prepared(x))  # initializes
    if graph:
        make = graphed_step if "graphed" in rest else plain_step
        return make(built.model, x, step.bf16)  # type: ignore[arg-type]
    return training_step(built, x)


def lend_scipy() -> None:
    """FrEIA takes one function of scipy, random rotations: without scipy, one of ours stands for it."""
    if "scipy" in sys.modules or importlib.util.find_spec("scipy") is not None:
        return
    stats = types.ModuleType("scipy.stats")

    class Rotations:
        """``scipy.stats.special_ortho_group``, as far as FrEIA uses it."""

        @staticmethod
        def rvs(dim: int, **_: object) -> np.ndarray:
            q, r = np.linalg.qr(np.random.default_rng(dim).standard_normal((dim, dim)))
            q *= np.sign(np.diag(r))
            q[:, 0] *= np.linalg.det(q)
            return q

    stats.special_ortho_group = Rotations  # type: ignore[attr-defined]
    package = types.ModuleType("scipy")
    package.stats = stats  # type: ignore[attr-defined]
    sys.modules |= {"scipy": package, "scipy.stats": stats}


def images(step: Step, device: Device) -> Tensor:
    """A batch."""
    drawn = torch.rand(step.batch, *step.glow.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    return drawn.to(device.torch)


def _measure(step: Step, context: Context) -> None:
    x = images(step, context.device)
    pieces: dict[str, Piece] = {}
    facts: dict[str, dict[str, object]] = {}
    covers: dict[str, float] = {}
    for side in (*SIDES[:4], *PEERS, *SIDES[4:]):
        if not context.may_run(step.name, side) or context.time_left() <= 0:
            continue
        with context.side(step.name, side):
            run = build(side, step, x)
            piece = Piece(lambda _, run=run: run())
            covers[side] = warm_up(context.device, piece)
            facts[side] = {"peak_bytes": peak_memory(context.device, piece), "loss": float(run())}
            pieces[side] = piece
    times = interleave(context.device, pieces, covers, context.sizes.rounds, context.time_left)
    for side in times:  # after all times: a profiler that was there once may slow down the host
        if context.time_left() <= 0:
            break
        with context.side(step.name, side):
            kernels = launched(context.device, partial(pieces[side].run, None))
            facts[side]["launches"] = sum(kernel.count for kernel in kernels)
            facts[side]["kernel_us"] = sum(kernel.microseconds for kernel in kernels)
    ours = times[OURS].wall.median if OURS in times else None
    for side, found in times.items():
        context.add(
            step.name,
            side=side,
            **microseconds(found),
            images_per_s=step.batch / found.wall.median,
            ratio_to_ours="" if ours is None else f"{found.wall.median / ours:.3f}",
            **facts[side],
        )
