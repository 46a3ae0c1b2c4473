"""``python -m benchmarks.gpu.once WORK``: forward and backward of one operator, between marks that ncu looks for."""

from __future__ import annotations

import sys

import torch

from benchmarks._case import with_grads
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.works import works


def main(name: str) -> None:
    """Runs the work of that name."""
    one = next(work for work in works(Sizes()) if work.name == name)
    work = one.make()
    inputs = tuple(value.detach().cuda().requires_grad_() for value in one.placed(work.inputs))
    grads = tuple(torch.randn_like(value) for value in work.ours(*inputs))
    for measured in (False, False, True):
        if measured:
            torch.cuda.synchronize()
            torch.cuda.profiler.start()
        with_grads(work.ours(*inputs), inputs, grads)
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()


if __name__ == "__main__":
    main(sys.argv[1])
