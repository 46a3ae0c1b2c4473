"""A process that runs cases with one revision of hybridkern, on request: a line of JSON for a line of JSON.

``{"build": CASE}`` is answered by the size of each result, ``{"time": CALLS}`` by seconds a call. An error is answered
by ``{"error": TEXT}``. Standard output belongs to the answers alone.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import hybridkern
from benchmarks import _environment
from benchmarks._case import Run
from benchmarks._measure import seconds_a_call
from benchmarks.compare.cases import all_cases
from hybridkern._extension import extension

PAUSE = 0.005  # until the idle threads of the process before this one have stopped spinning
_WARM_UP = 3
# What shifts the arrays of a case that is built anew: gaps of whole cache lines, up to 512 KiB each.
_GAPS, _MOST_APART = 4, 2048


class Worker:
    """One case at a time."""

    def __init__(self) -> None:
        self.run: Run = tuple
        self._apart: list[torch.Tensor] = []

    def build(self, case: str) -> dict[str, object]:
        self.run = tuple  # frees what the case before held
        gc.collect()
        self._apart = [torch.empty(64 * random.randrange(1, _MOST_APART)) for _ in range(_GAPS)]
        self.run = all_cases()[case]()
        sizes = [[list(value.shape), float(value.detach().double().norm())] for value in self.run()]
        for _ in range(_WARM_UP):
            self.run()
        return {"results": sizes, "seconds": min(seconds_a_call(self.run, 1) for _ in range(_WARM_UP))}

    def time(self, calls: int) -> dict[str, object]:
        gc.collect()
        time.sleep(PAUSE)
        gc.disable()
        for _ in range(max(1, calls // 10)):
            self.run()
        seconds = seconds_a_call(self.run, calls)
        gc.enable()
        return {"seconds": seconds}


def hello() -> dict[str, object]:
    """What this process measures."""
    path = str(Path(hybridkern.__file__).resolve().parents[1])
    reason = None if extension.module is not None else str(extension.reason)
    return {"path": path, "without_extension": reason, "conditions": _environment.conditions()}


def main() -> None:
    """Answers until its input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    torch.set_num_threads(_environment.THREADS)
    worker = Worker()
    requests: dict[str, Callable[..., dict[str, object]]] = {"build": worker.build, "time": worker.time}
    print(json.dumps(hello()), file=answers, flush=True)
    for line in sys.stdin:
        ((what, argument),) = json.loads(line).items()
        try:
            answer = requests[what](argument)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
