"""What a benchmark is: one piece of work, done by several sides whose results agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks._results import AGAIN, COMPILED, EAGER, FLOOR, OURS

Function = Callable[..., tuple[Tensor, ...]]
Run = Callable[[], tuple[Tensor, ...]]

# Loose on purpose: the field's formulas lose digits in the tails, and float32 sums differ in their order.
TOLERANCE = 1e-2


@dataclass(frozen=True)
class Sides:
    """The same work, ready to run.

    Attributes:
        run: by side; each returns what it computed.
        compared: how many of the results, from the first on, must agree; ``None``: all.
        calls: how many calls in a row are compared: more than one where a call changes what the next one finds.
        traffic: bytes the work must read and write at least, where such a bound is stated.
        tolerance: how far apart results may be, by the norm of ours.
    """

    run: Mapping[str, Run]
    compared: int | None = None
    calls: int = 1
    traffic: int | None = None
    tolerance: float = TOLERANCE

    def check(self) -> None:
        """Every side must give the results of ours.

        Raises:
            AssertionError: one does not; the message says which.
        """
        results = {
            side: [result for _ in range(self.calls) for result in run()[: self.compared]]
            for side, run in self.run.items()
            if side != FLOOR
        }
        for side, found in results.items():
            for index, (ours, theirs) in enumerate(zip(results[OURS], found, strict=True)):
                _check_equal(f"result {index} of '{side}'", ours, theirs, self.tolerance)


@dataclass(frozen=True)
class Case:
    """A benchmark.

    Attributes:
        name: the work, as the tables print it.
        build: makes inputs and sides.
        targets: the least ratio to ours, by side.
    """

    name: str
    build: Callable[[], Sides]
    targets: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """An operator call and the field's formula for it: functions of ``inputs`` that return a tuple of tensors.

    ``tolerance`` is that of :class:`Sides`.
    """

    ours: Function
    eager: Function
    inputs: tuple[Tensor, ...]
    tolerance: float = TOLERANCE


def operator_case(
    name: str,
    make: Callable[[], Work],
    *,
    eager: float,
    compiled: float | None = None,
    backward: bool = True,
    floor: bool = False,
    floor_target: float | None = None,
    compile_formula: bool = True,
) -> Case:
    """A case that sets an operator beside the eager formula and ``torch.compile`` of it.

    Args:
        name: the work; what is run (``forward``, ``forward+backward``) is added.
        make: draws the inputs, after a fixed seed.
        eager, compiled: targets.
        backward: also the gradients of all inputs, for given gradients of all outputs.
        floor: add ``torch.add`` at equal traffic.
        floor_target: the share of its bytes per second aimed at.
        compile_formula: whether to set ``torch.compile`` beside it.
    """
    wanted = {EAGER: eager, COMPILED: compiled, FLOOR: floor_target}

    def build() -> Sides:
        torch.manual_seed(0)
        return _operator_sides(make(), backward, floor, compile_formula)

    what = "forward+backward" if backward else "forward"
    return Case(f"{name}, {what}", build, {side: ratio for side, ratio in wanted.items() if ratio is not None})


def _operator_sides(work: Work, backward: bool, floor: bool, compile_formula: bool) -> Sides:
    inputs = tuple(value.requires_grad_(backward) for value in work.inputs)
    with torch.no_grad():
        outputs = work.ours(*inputs)
    grads = tuple(torch.randn_like(value) for value in outputs)
    functions = {OURS: work.ours, AGAIN: work.ours, EAGER: work.eager}
    if compile_formula:
        functions[COMPILED] = torch.compile(work.eager, fullgraph=True, dynamic=False)
    run = {side: _runner(function, inputs, grads if backward else None) for side, function in functions.items()}
    traffic = None
    if floor:
        # the forward reads inputs and writes outputs; the backward reads inputs and gradients of the outputs, and
        # writes gradients of the inputs
        traffic = _bytes(inputs) * (3 if backward else 1) + _bytes(outputs) * (2 if backward else 1)
        run[FLOOR] = _addition(traffic)
    return Sides(run, traffic=traffic, tolerance=work.tolerance)


def _runner(function: Function, inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...] | None) -> Run:
    if grads is None:
        return lambda: function(*inputs)
    return lambda: with_grads(function(*inputs), inputs, grads)


def with_grads(
    outputs: tuple[Tensor, ...], inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """``outputs`` and the gradients of ``inputs`` for given gradients of ``outputs``: no side pays for a sum."""
    return tuple(value.detach() for value in outputs) + torch.autograd.grad(outputs, inputs, grads)


def _addition(traffic: int) -> Run:
    """``torch.add(a, b, out=c)`` on float32 tensors that moves ``traffic`` bytes."""
    a, b, c = (torch.ones(max(1, traffic // 12)) for _ in range(3))
    return lambda: (torch.add(a, b, out=c),)


def _bytes(tensors: tuple[Tensor, ...]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors)


def _check_equal(what: str, ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    assert ours.shape == theirs.shape, f"{what}: shape {tuple(theirs.shape)}, ours has {tuple(ours.shape)}"
    wide = ours.detach().double()
    distance = float((wide - theirs.detach().double()).norm())
    size = float(wide.norm())
    # written so that NaN does not pass
    assert distance <= tolerance * size, f"{what} is {distance:.3g} away from ours, whose norm is {size:.3g}"
