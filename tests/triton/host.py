"""What the host does in a step of a flow on a GPU: ``python -m tests.triton.host``.

Counts the calls that go through PyTorch's dispatcher and the Python functions that run, and takes the time of the
processor, for one step of Glow with its network: 1x1 convolution, coupling network and affine coupling, forward and
backward. Needs triton and no GPU: the launch itself is left out (:mod:`tests.triton.pretended`), which on a GPU adds a
few microseconds a kernel to each row. Tensors are small, so that what the CPU computes in the place of the GPU's
matrix products takes next to no time.

A row a way to get to the launches: with Python autograd Functions or C++ nodes, with launchers or plans.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile

from hybridkern import ops
from hybridkern._extension import nodes
from hybridkern.ops import _backends
from hybridkern.ops._autograd import python_functions
from hybridkern.ops._triton.plans import launcher_by_launcher
from tests.triton.pretended import Gpu, pretended

_FEW, _MANY = 2, 6
WAYS = {
    "Python Functions, launchers": (False, False),
    "Python Functions, plans": (False, True),
    "C++ nodes, launchers": (True, False),
    "C++ nodes, plans": (True, True),
}


class Host(NamedTuple):
    """Of one step: kernels of Triton, calls of the dispatcher, Python functions, microseconds of the processor."""

    launches: float
    dispatches: float
    frames: float
    microseconds: float


@contextmanager
def way(with_nodes: bool, with_plans: bool) -> Iterator[None]:
    """A way to get to the launches, in the block."""
    with (
        nullcontext() if with_nodes else python_functions(),
        nullcontext() if with_plans else launcher_by_launcher(),
        mock.patch.object(_backends.state, "unasked", True),  # as in a process that asked for no backend
    ):
        yield


def steps_of(count: int) -> Callable[[], None]:
    """A training pass over that many steps of a flow."""
    torch.manual_seed(0)
    shape, hidden = (1, 2, 2, 2), 4
    sizes = [(4, 4), (4,), (hidden, 2, 3, 3), (hidden,), (hidden, hidden, 1, 1), (hidden,), (4, hidden, 3, 3), (4,)]
    layers = [[torch.zeros(size, requires_grad=True) for size in sizes] for _ in range(count)]
    leaves = [torch.zeros(shape, requires_grad=True) for _ in range(2)]
    wanted = [*leaves, *(parameter for layer in layers for parameter in layer)]
    incoming = [torch.ones(shape), torch.ones(shape), torch.ones(1)]

    def run() -> None:
        first, second = leaves
        log_det = torch.zeros(1)
        for weight, bias, *network in layers:
            first, second = ops.paired_conv1x1(first, second, weight, bias)
            second, log_det = ops.affine_coupling(second, ops.coupling_network(first, *network), log_det, form="glow")
        torch.autograd.grad([first, second, log_det], wanted, incoming)

    return run


def dispatches(run: Callable[[], None]) -> Counter[str]:
    """Operators that the dispatcher was asked for, those inside of others too."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        run()
    names = [event.name for event in seen.events()]
    return Counter(name for name in names if name.partition("::")[0] in ("aten", "hybridkern"))


def frames(run: Callable[[], None]) -> Counter[str]:
    """Python functions that ran, by file and name."""
    seen: Counter[str] = Counter()

    def note(frame: Any, event: str, argument: object) -> None:
        if event == "call":
            seen[f"{frame.f_code.co_filename}:{frame.f_code.co_name}"] += 1

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return seen


def microseconds(runs: Sequence[Callable[[], None]], rounds: int) -> list[float]:
    """The least time of the processor that each took, of rounds in turn."""
    least = [float("inf")] * len(runs)
    for _ in range(rounds):
        for i, run in enumerate(runs):
            start = time.process_time_ns()
            run()
            least[i] = min(least[i], (time.process_time_ns() - start) / 1e3)
    return least


def of_a_step(gpu: Gpu, rounds: int = 0) -> Host:
    """What one more step adds; without ``rounds`` no time is taken."""
    runs = [steps_of(count) for count in (_FEW, _MANY)]
    counts: list[list[float]] = []
    for run in runs:
        for _ in range(3):
            run()  # until there are plans
        gpu.launches = []
        run()
        launched, gpu.launches = len(gpu.launches), None
        counts.append([launched, dispatches(run).total(), frames(run).total()])
    times = microseconds(runs, rounds) if rounds else [0.0, 0.0]
    for row, value in zip(counts, times, strict=True):
        row.append(value)
    return Host(*((many - few) / (_MANY - _FEW) for few, many in zip(*counts, strict=True)))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300, help="of the clock, of which the least counts")
    parser.add_argument("--list", action="store_true", help="what is called, too")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, triton {__import__('triton').__version__}, Python {sys.version.split()[0]}")
    if nodes.module is None:
        print(f"no C++ nodes: {nodes.reason}")
    print(f"{'a step of a flow, forward and backward':40}{'launches':>9}{'dispatches':>12}{'frames':>8}{'us CPU':>8}")
    for name, (with_nodes, with_plans) in WAYS.items():
        if with_nodes and nodes.module is None:
            continue
        with pretended() as gpu, way(with_nodes, with_plans):
            host = of_a_step(gpu, options.rounds)
            print(f"{name:40}{host.launches:9.0f}{host.dispatches:12.0f}{host.frames:8.0f}{host.microseconds:8.0f}")
            if options.list:
                for seen in (dispatches, frames):
                    run = steps_of(1)
                    for _ in range(3):
                        run()
                    for called, count in seen(run).most_common():
                        print(f"    {count:4} {called.rpartition('/')[2]}")


if __name__ == "__main__":
    main()
