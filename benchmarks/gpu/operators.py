"""Operators at Glow's own sizes: time on the device, of the host, and in all; their share of a copy's bandwidth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
from torch import Tensor

import hybridkern
from benchmarks._case import Function, Sides, Work, with_grads
from benchmarks._results import AGAIN, COMPILED, EAGER, OURS
from benchmarks.gpu.backends import backends_of, serves
from benchmarks.gpu.device import Device
from benchmarks.gpu.item import Context, Item
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.timing import Piece, Times, interleave, peak_memory, warm_up
from benchmarks.gpu.works import OperatorWork, works

PHASES = ("forward", "backward", "full")
COLUMNS = (
    *("phase", "device_us", "device_q1_us", "device_q3_us", "host_us", "wall_us", "rounds", "ratio_to_ours"),
    *("bytes", "bytes_per_s", "share_of_copy", "peak_bytes"),
)
_COPY_ROUNDS = 15


def items(device: Device, sizes: Sizes) -> list[Item]:
    """One item an operator and size."""
    return [Item(work.name, partial(_measure, work)) for work in works(sizes)]


def copy_bandwidth(context: Context) -> float:
    """Bytes a second, read and written, of a copy on the device."""
    return _copied(context.device, context.sizes.copy)


@cache
def _copied(device: Device, size: int) -> float:
    source = torch.ones(size, dtype=torch.int8, device=device.torch)
    target = torch.empty_like(source)
    piece = Piece(lambda _: target.copy_(source))
    covers = {"copy": warm_up(device, piece)}
    times = interleave(device, {"copy": piece}, covers, _COPY_ROUNDS)["copy"]
    return 2 * size / times.device.median


def _measure(one: OperatorWork, context: Context) -> None:
    torch.manual_seed(0)
    torch.compiler.reset()
    work = one.make()
    inputs = tuple(value.detach().to(context.device.torch).requires_grad_() for value in one.placed(work.inputs))
    with torch.no_grad():
        outputs = work.ours(*inputs)
    grads = tuple(torch.randn_like(value) for value in outputs)
    ready = dict(_ready(one, work, inputs, grads, context))
    read, written = _bytes(inputs), _bytes(outputs)
    traffic = {"forward": read + written, "backward": 2 * read + written, "full": 3 * read + 2 * written}
    for phase in PHASES:
        if context.time_left() <= 0:
            raise TimeoutError(f"the time of the phase was over before {phase}")
        pieces = {side: _piece(side, functions, inputs, grads, phase) for side, functions in ready.items()}
        _time(one.name, phase, pieces, traffic[phase], context)


def _ready(
    one: OperatorWork, work: Work, inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...], context: Context
) -> Iterator[tuple[str, Function]]:
    """The sides that run, and whose results are those of ours."""
    functions: dict[str, Function] = {OURS: work.ours, AGAIN: work.ours}
    functions |= {on_backend(backend): work.ours for backend in backends_of(context.device) if serves(backend, one.op)}
    functions[EAGER] = work.eager
    if one.compiled and context.device.is_gpu:
        functions[COMPILED] = torch.compile(work.eager, fullgraph=True, dynamic=False)
    for side, function in functions.items():
        if not context.may_run(one.name, side):
            continue
        with context.side(one.name, side):
            runs = {OURS: partial(_both, work.ours, inputs, grads)}
            piece = _piece(side, function, inputs, grads, "full")
            runs[side] = lambda piece=piece: _inside(piece)
            Sides(runs, tolerance=work.tolerance).check()
            yield side, function


def on_backend(backend: str) -> str:
    """Name of the side that runs on that backend alone."""
    return f"{OURS} ({backend})"


def _inside(piece: Piece) -> tuple[Tensor, ...]:
    with piece.around():
        result: tuple[Tensor, ...] = piece.run(None)  # type: ignore[assignment]
    return result


def _piece(side: str, function: Function, inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...], phase: str) -> Piece:
    backend = side.removeprefix(f"{OURS} (").removesuffix(")") if side.startswith(f"{OURS} (") else "auto"
    around = partial(hybridkern.use_backend, backend)
    if phase == "forward":
        plain = tuple(value.detach() for value in inputs)
        return Piece(lambda _: function(*plain), around=around)
    if phase == "backward":
        run: Callable[[tuple[Tensor, ...]], object] = lambda outputs: torch.autograd.grad(outputs, inputs, grads)  # noqa: E731
        return Piece(run, lambda: function(*inputs), around)
    return Piece(lambda _: _both(function, inputs, grads), around=around)


def _both(function: Function, inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return with_grads(function(*inputs), inputs, grads)


def _time(item: str, phase: str, pieces: dict[str, Piece], traffic: int, context: Context) -> None:
    covers: dict[str, float] = {}
    peaks: dict[str, int] = {}
    for side, piece in pieces.items():
        with context.side(item, side, phase=phase):
            covers[side] = warm_up(context.device, piece)
            peaks[side] = peak_memory(context.device, piece)
    warm = {side: piece for side, piece in pieces.items() if side in peaks}
    times = interleave(context.device, warm, covers, context.sizes.rounds)
    ours = times[OURS].device.median if OURS in times else None
    copy = copy_bandwidth(context)
    for side, found in times.items():
        moved = traffic / found.device.median
        context.add(
            item,
            side=side,
            phase=phase,
            **microseconds(found),
            ratio_to_ours="" if ours is None else f"{found.device.median / ours:.3f}",
            bytes=traffic,
            bytes_per_s=moved,
            share_of_copy=f"{moved / copy:.3f}",
            peak_bytes=peaks[side],
        )


def microseconds(times: Times) -> dict[str, object]:
    """Columns of times."""
    return {
        "device_us": f"{times.device.median * 1e6:.2f}",
        "device_q1_us": f"{times.device.q1 * 1e6:.2f}",
        "device_q3_us": f"{times.device.q3 * 1e6:.2f}",
        "host_us": f"{times.host.median * 1e6:.2f}",
        "wall_us": f"{times.wall.median * 1e6:.2f}",
        "rounds": times.device.rounds,
    }


def _bytes(tensors: tuple[Tensor, ...]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors)
