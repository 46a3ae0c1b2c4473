"""Peak activation memory and time of one forward and backward pass of Glow, by memory mode and against normflows.

    python -m benchmarks.glow_memory peak --sides store,recompute,invert,normflows --steps 4,32
    python -m benchmarks.glow_memory time --size 32 --steps 8 --hidden 512 --batch 8

``peak`` counts bytes at PyTorch's CPU allocator: the profiler reports every allocation and release, inside operators
too, in order. Counted is what is alive at once beyond what was alive before the pass, without the storages that end as
gradients of parameters (they are as large in every mode, and no activations). What libraries allocate past PyTorch's
allocator (oneDNN's scratch, if any) is not seen. tests/benchmarks/test_glow_memory.py checks a count made by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks._environment import THREADS, conditions, refusal
from benchmarks._measure import interleave
from hybridkern import flows

OURS = ("store", "recompute", "invert")


def _allocations(events: list) -> Iterator[tuple[int, int, int]]:
    """``(time, address, bytes)`` of every allocation (positive) and release (negative) below these events."""
    stack = list(events)
    while stack:
        event = stack.pop()
        stack.extend(event.children)
        if event.typed[0] == torch._C._profiler._EventType.Allocation:
            yield event.start_time_ns, event.typed[1].ptr, event.typed[1].alloc_size


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


class NormflowsGlow(nn.Module):
    """The same architecture in normflows: multi-scale Glow with LU-parametrized 1x1 convolutions."""

    def __init__(self, shape: tuple[int, int, int], levels: int, steps: int, hidden: int) -> None:
        super().__init__()
        import normflows as nf

        c, h, w = shape
        bases, merges, stages = [], [], []
        for i in range(levels):
            channels = c * 2 ** (levels + 1 - i)
            blocks = [nf.flows.GlowBlock(channels, hidden, split_mode="channel") for _ in range(steps)]
            stages.append([*blocks, nf.flows.Squeeze()])
            scale = 2 ** (levels - i)
            latent = (channels if i == 0 else channels // 2, h // scale, w // scale)
            if i > 0:
                merges.append(nf.flows.Merge())
            bases.append(nf.distributions.DiagGaussian(latent, trainable=False))
        self.model = nf.MultiscaleFlow(bases, stages, merges, class_cond=False)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.model.log_prob(x, None)


def build(side: str, size: int, levels: int, steps: int, hidden: int, x: Tensor) -> nn.Module:
    """The model of that side, initialized from the data."""
    torch.manual_seed(0)
    if side == "normflows":
        model: nn.Module = NormflowsGlow((3, size, size), levels, steps, hidden)
        with torch.no_grad():
            model.log_prob(x)
        return model
    flow = flows.Glow((3, size, size), levels=levels, steps=steps, hidden=hidden, memory=side)
    flow.initialize(x)
    return flow.train()


def pass_of(model: nn.Module, x: Tensor, bf16: bool) -> Callable[[], None]:
    """Forward and backward from no gradients."""

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = -model.log_prob(x).mean()
        loss.backward()

    return step


def measure_peaks(options: argparse.Namespace, x: Tensor) -> list[dict[str, object]]:
    rows = []
    for side in options.sides:
        for steps in options.steps:
            model = build(side, options.size, options.levels, steps, options.hidden, x)
            step = pass_of(model, x, options.bf16)
            peak = peak_bytes(step, list(model.parameters()))
            rows.append({"side": side, "steps": steps, "peak_MiB": round(peak / 2**20, 2)})
            print(rows[-1], flush=True)
    return rows


def measure_times(options: argparse.Namespace, x: Tensor) -> list[dict[str, object]]:
    rows = []
    for steps in options.steps:
        models = {side: build(side, options.size, options.levels, steps, options.hidden, x) for side in options.sides}
        sides = {side: pass_of(model, x, options.bf16) for side, model in models.items()}
        timings = interleave(sides, rounds=options.rounds, seconds=0.0)
        base = timings[options.sides[0]].median
        for side, timing in timings.items():
            ratio = round(timing.median / base, 3)
            rows.append({"side": side, "steps": steps, "ms": round(1e3 * timing.median, 1), "ratio": ratio})
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measures, prints, and writes JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["peak", "time"])
    parser.add_argument("--sides", type=lambda text: text.split(","), default=list(OURS))
    parser.add_argument("--steps", type=lambda text: [int(part) for part in text.split(",")], default=[4, 32])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.what == "time" and (reason := refusal()):
        sys.exit(reason)
    torch.set_num_threads(THREADS)
    x = torch.rand(options.batch, 3, options.size, options.size) - 0.5
    rows = (measure_peaks if options.what == "peak" else measure_times)(options, x)
    if options.json:
        given = {name: value for name, value in vars(options).items() if name != "json"}
        temporary = options.json.with_suffix(".part")
        temporary.write_text(json.dumps({"options": given, "conditions": conditions(), "rows": rows}, indent=1) + "\n")
        os.replace(temporary, options.json)


if __name__ == "__main__":
    main()
