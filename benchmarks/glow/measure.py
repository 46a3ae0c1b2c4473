"""Times whole steps, what they spend outside the coupling networks, and sampling; all sides in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks._measure import Timing, interleave, seconds_a_call
from benchmarks.glow.idle import at_rest, replacements
from benchmarks.glow.memory import peak_of
from benchmarks.glow.side import Side, optimizer_of, sampling, training_step

AGAIN = " again"  # the self-check: a side that is timed twice


@dataclass(frozen=True)
class Shares:
    """Where the time of a step goes, in seconds (medians).

    Attributes:
        step: the whole step.
        outside: forward and backward pass with coupling networks that do no work.
        optimizer: Adam's step and ``zero_grad``.
    """

    step: float
    outside: float
    optimizer: float

    @property
    def share_outside(self) -> float:
        """Work outside the coupling networks and the optimizer, as a part of the step."""
        return self.outside / self.step


def time_steps(sides: Sequence[Side], x: Tensor, rounds: int) -> dict[str, Timing]:
    """Seconds of a training step on ``x``; the fastest side is timed twice, as ``<name> again``."""
    return _timed({side.name: training_step(side, x) for side in sides}, rounds)


def time_sampling(sides: Sequence[Side], count: int, rounds: int) -> dict[str, Timing]:
    """Seconds that drawing ``count`` images takes; the models must have been initialized."""
    for side in sides:
        side.model.eval()
    return _timed({side.name: sampling(side, count) for side in sides}, rounds)


def _timed(run: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    trial = _once(run)
    fastest = min(trial, key=trial.__getitem__)
    return interleave({**run, fastest + AGAIN: run[fastest]}, rounds=rounds, settle=False)


def _once(run: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of a second call of each; the first call initializes."""
    for function in run.values():
        function()
    return {name: seconds_a_call(function, 1) for name, function in run.items()}


def time_shares(sides: Sequence[Side], x: Tensor, rounds: int) -> dict[str, Shares]:
    """Step, work outside the networks, and optimizer of every side, all of them in turn."""
    run: dict[tuple[str, str], Callable[[], object]] = {}
    for side in sides:
        run[side.name, "step"] = training_step(side, x)
        run[side.name, "step"]()  # initializes
        run[side.name, "outside"] = _outside(side, x)
        run[side.name, "optimizer"] = _optimizer(side)
    labelled = {" ".join(key): function for key, function in run.items()}
    timings = interleave(labelled, rounds=rounds, settle=False)
    parts = ("step", "outside", "optimizer")
    return {side.name: Shares(*(timings[f"{side.name} {part}"].median for part in parts)) for side in sides}


def _outside(side: Side, x: Tensor) -> Callable[[], object]:
    images = side.prepared(x)
    functions = replacements(side.networks, lambda: side.loss(images))

    def run() -> None:
        side.model.zero_grad()
        with at_rest(side.networks, functions):
            side.loss(images).backward()

    return run


def _optimizer(side: Side) -> Callable[[], object]:
    optimizer = optimizer_of(side)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    grads = [torch.zeros_like(p) for p in parameters]

    def run() -> None:
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        optimizer.step()
        optimizer.zero_grad()

    return run


def step_peak(build: Callable[..., Side], arguments: Iterable[object], shape: tuple[int, ...], threads: int) -> int:
    """Bytes that a step takes beside weights, gradients and the optimizer's state; for a fresh process.

    Args:
        build: makes the side of ``arguments``.
        arguments: of ``build``.
        shape: of the batch.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    side = build(*arguments)
    x = torch.rand(shape) - 0.5
    optimizer = optimizer_of(side)

    def step(images: Tensor) -> None:
        side.loss(images).backward()
        optimizer.step()

    side.model.train()
    step(side.prepared(x[:1]))  # actnorm, gradients, the optimizer's state
    optimizer.zero_grad(set_to_none=False)
    images = side.prepared(x)
    return peak_of(lambda: step(images))
