"""Peak activation memory of a forward and backward pass, counted at PyTorch's CPU allocator.

The profiler reports every allocation and release, inside operators too, in order. Counted is what is alive at once
beyond what was alive before the pass, without the storages that end as gradients of parameters (they are as large in
every mode, and no activations). What libraries allocate past PyTorch's allocator (oneDNN's scratch, if any) is not
seen. tests/benchmarks/test_glow_memory.py checks a count made by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.glow import sides
from benchmarks.glow.side import Architecture, Side


def peak_bytes(step: Callable[[], object], parameters: list[nn.Parameter]) -> int:
    """Most bytes alive at once during ``step()``, which runs a forward and a backward pass from no gradients."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    found = sorted(_allocations(recorded.profiler.kineto_results.experimental_event_tree()), key=lambda event: event[0])
    kept = {p.grad.untyped_storage().data_ptr() for p in parameters if p.grad is not None}
    last = {address: i for i, (_, address, size) in enumerate(found) if size > 0}
    gradients = {last[address] for address in kept if address in last}
    alive: dict[int, int] = {}
    now = peak = 0
    for i, (_, address, size) in enumerate(found):
        if size > 0 and i not in gradients:
            alive[address] = size
            now += size
            peak = max(peak, now)
        elif size < 0:
            now -= alive.pop(address, 0)  # what lived before the pass is not counted
    return peak


def _allocations(events: list) -> Iterator[tuple[int, int, int]]:
    """``(time, address, bytes)`` of every allocation (positive) and release (negative) below these events."""
    stack = list(events)
    while stack:
        event = stack.pop()
        stack.extend(event.children)
        if event.typed[0] == torch._C._profiler._EventType.Allocation:
            yield event.start_time_ns, event.typed[1].ptr, event.typed[1].alloc_size


def initialized(name: str, architecture: Architecture, x: Tensor) -> Side:
    """The side of that name, in training mode, its actnorm initialized on ``x``."""
    torch.manual_seed(0)
    side = sides.build(name, architecture)
    side.model.train()
    with torch.no_grad():
        side.loss(side.prepared(x))
    return side


def pass_of(side: Side, x: Tensor) -> Callable[[], None]:
    """Forward and backward pass from no gradients."""
    images = side.prepared(x)

    def step() -> None:
        side.model.zero_grad(set_to_none=True)
        side.loss(images).backward()

    return step


def pass_peak(name: str, architecture: Architecture, batch: int, threads: int) -> int:
    """Peak bytes of a pass over ``batch`` images of noise; for a fresh process."""
    torch.set_num_threads(threads)
    x = torch.rand(batch, *architecture.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    side = initialized(name, architecture, x)
    return peak_bytes(pass_of(side, x), list(side.model.parameters()))
