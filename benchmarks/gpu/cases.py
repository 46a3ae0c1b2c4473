"""What is measured: every operator, and a whole Glow step; each forward, backward, and both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

import hybridkern
from benchmarks import (
    affine_coupling,
    discretized_logistic,
    discretized_logistic_mixture,
    gaussian_log_prob,
    paired_conv1x1,
    rounding_coupling,
)
from benchmarks._case import Function, Sides, Work, with_grads
from benchmarks._results import AGAIN, COMPILED, EAGER, OURS
from benchmarks.glow import sides as glow_sides
from benchmarks.glow.side import Architecture, Side, training_step
from benchmarks.gpu.device import Device, Piece

PHASES = ("forward", "backward", "full")


@dataclass(frozen=True)
class Sizes:
    """How large the works are; the defaults do not fit the L2 cache of any GPU.

    Attributes:
        images: of the couplings, ``(B, C, H, W)`` of the half that changes.
        densities: ``(B, D)``; the mixture takes a quarter of the batch.
        small: ``(B, C)`` of the works whose time is that of their launches.
        copy: bytes.
        glow: architecture.
        batch: images a step.
    """

    images: tuple[int, ...] = (256, 48, 32, 32)
    densities: tuple[int, ...] = (4096, 3072)
    small: tuple[int, ...] = (64, 32)
    copy: int = 1 << 30
    glow: Architecture = field(default_factory=Architecture)
    batch: int = 256


@dataclass(frozen=True)
class Case:
    """One table row.

    Attributes:
        name: the work.
        phase: ``"forward"``, ``"backward"`` or ``"full"``.
        sides: what to time.
        traffic: bytes that must be read and written at least; ``None`` where no bound is stated.
    """

    name: str
    phase: str
    sides: Mapping[str, Piece]
    traffic: int | None = None


def all_cases(device: Device, sizes: Sizes, *, compiled: bool = True) -> Iterator[Case]:
    """The cases, each built when its turn comes; sides that compute something else than ours raise before."""
    mixture = (max(1, sizes.densities[0] // 4), *sizes.densities[1:])
    works: dict[str, Callable[[], Work]] = {
        f"affine_coupling glow {sizes.images}": partial(affine_coupling.work, *sizes.images),
        f"rounding_coupling {sizes.images}": partial(rounding_coupling.work, *sizes.images),
        f"discretized_logistic {sizes.densities}": partial(discretized_logistic.work, *sizes.densities),
        f"discretized_logistic_mixture K=5 {mixture}": partial(discretized_logistic_mixture.work, *mixture),
        f"gaussian_log_prob {sizes.densities}": partial(gaussian_log_prob.work, *sizes.densities),
        f"paired_conv1x1 {sizes.images}": partial(paired_conv1x1.work, *sizes.images),
        f"affine_coupling glow {sizes.small}": partial(affine_coupling.work, *sizes.small),
        f"discretized_logistic {sizes.small}": partial(discretized_logistic.work, *sizes.small),
    }
    for name, make in works.items():
        yield from operator_cases(name, make, device, compiled=compiled)
    for precision in ("", "-bf16"):
        yield from glow_cases(device, sizes, precision, compiled=compiled)


def operator_cases(name: str, make: Callable[[], Work], device: Device, *, compiled: bool) -> Iterator[Case]:
    """Forward, backward and both of one operator: ours, on each backend there is, and the field's formula."""
    torch.manual_seed(0)
    torch.compiler.reset()
    work = make()
    inputs = tuple(value.detach().to(device.torch).requires_grad_() for value in work.inputs)
    functions: dict[str, Function] = {OURS: work.ours, AGAIN: work.ours, EAGER: work.eager}
    functions |= {f"{OURS} ({backend})": on_backend(work.ours, backend) for backend in backends_of(device)}
    if compiled:
        functions[COMPILED] = torch.compile(work.eager, fullgraph=True, dynamic=False)
    with torch.no_grad():
        outputs = work.ours(*inputs)
    grads = tuple(torch.randn_like(value) for value in outputs)
    Sides({side: partial(_both, function, inputs, grads) for side, function in functions.items()}).check()
    read, written = _bytes(inputs), _bytes(outputs)
    traffic = {"forward": read + written, "backward": 2 * read + written, "full": 3 * read + 2 * written}
    for phase in PHASES:
        pieces = {side: _operator_piece(function, inputs, grads, phase) for side, function in functions.items()}
        yield Case(name, phase, pieces, traffic[phase])


def backends_of(device: Device) -> list[str]:
    """The compiled backends that serve the device."""
    serving = ("triton", "cuda") if device.is_gpu else ("cpp",)
    return [name for name, status in hybridkern.backends().items() if name in serving and status.available]


def on_backend(function: Function, backend: str) -> Function:
    """``function`` with an explicit choice of backend."""

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        with hybridkern.use_backend(backend):
            return function(*inputs)

    return run


def _both(function: Function, inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return with_grads(function(*inputs), inputs, grads)


def _operator_piece(function: Function, inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...], phase: str) -> Piece:
    if phase == "forward":
        plain = tuple(value.detach() for value in inputs)
        return Piece(lambda _: function(*plain))
    if phase == "backward":
        return Piece(lambda outputs: torch.autograd.grad(outputs, inputs, grads), lambda: function(*inputs))
    return Piece(lambda _: _both(function, inputs, grads))


def glow_cases(device: Device, sizes: Sizes, precision: str, *, compiled: bool) -> Iterator[Case]:
    """Loss, its backward pass, and a whole training step of Glow: ours, and the same model in plain PyTorch."""
    torch.compiler.reset()
    names = {EAGER: f"eager{precision}"}
    if glow_sides.missing("ours") is None:
        names = {OURS: f"ours{precision}", AGAIN: f"ours{precision}", **names}
    if compiled:
        names[COMPILED] = f"eager{precision}"
    x = torch.rand(sizes.batch, *sizes.glow.shape, device=device.torch) - 0.5
    built: dict[str, Side] = {}
    for side, name in names.items():
        torch.manual_seed(0)
        built[side] = glow_sides.build(name, sizes.glow)
        built[side].model.to(device.torch).train()
        with torch.no_grad():
            built[side].loss(built[side].prepared(x))  # initializes
        if side == COMPILED:
            built[side].model.compile(dynamic=False)  # forward(); log_prob calls the model
    steps = {side: training_step(one, x) for side, one in built.items()}
    name = f"Glow step {sizes.glow.shape}, {sizes.glow.levels}x{sizes.glow.steps}, hidden {sizes.glow.hidden}"
    name += f", batch {sizes.batch}, {'bf16' if precision else 'float32'}"
    for phase in PHASES:
        yield Case(name, phase, {side: _glow_piece(one, x, steps[side], phase) for side, one in built.items()})


def _glow_piece(side: Side, x: Tensor, step: Callable[[], Tensor], phase: str) -> Piece:
    images = side.prepared(x)
    if phase == "full":
        return Piece(lambda _: step())
    if phase == "forward":
        return Piece(lambda _: side.loss(images))

    def prepare() -> Tensor:
        side.model.zero_grad()
        return side.loss(images)

    return Piece(lambda loss: loss.backward(), prepare)


def _bytes(tensors: tuple[Tensor, ...]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors)
