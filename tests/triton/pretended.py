"""A pretended GPU for Triton: its kernels are neither compiled nor run, but launched as far as the host goes.

``with pretended() as gpu:`` has the Triton launchers serve CPU tensors. Triton's own code specializes and caches the
kernels; what stands in for compiler and driver notes every launch in ``gpu.launches``.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from hybridkern.ops import _gpu
from hybridkern.ops._triton import plans

_numbers = itertools.count(1000)  # of devices: Triton keeps its kernels by device, and these are nobody else's


class Compiled:
    """In place of a compiled kernel: what it was compiled for."""

    packed_metadata = (4, 1, 0)

    def __init__(self, source: Any, options: Any, gpu: Gpu) -> None:
        self.name = source.fn.__name__
        # types of the arguments, constants, which are multiples of 16, options
        self.specialization = (source.signature, source.constants, source.attrs, str(options))
        self.function = next(_numbers)
        self._gpu = gpu

    def launch_metadata(self, *_: Any) -> None:
        """Nothing for hooks."""

    def run(self, x: int, y: int, z: int, stream: int, function: int, *rest: Any) -> None:
        """Notes a launch."""
        assert function == self.function
        assert rest[0] is self.packed_metadata
        self._gpu.note(self, (x, y, z), stream, rest[4:])


class Launch(NamedTuple):
    """A launch as the driver would see it: tensors are addresses."""

    kernel: Compiled
    grid: tuple[int, int, int]
    stream: int
    arguments: tuple[Any, ...]


class Gpu:
    """Stands in for Triton's driver; ``device`` and ``stream`` are the current ones."""

    def __init__(self) -> None:
        self.device, self.stream = next(_numbers), 7
        self.launches: list[Launch] | None = []  # None: not noted

    def change_device(self) -> None:
        """Another one is current."""
        self.device = next(_numbers)

    def get_current_device(self) -> int:
        return self.device

    def get_current_stream(self, device: int) -> int:
        assert device == self.device
        return self.stream

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def note(self, kernel: Compiled, grid: tuple[int, int, int], stream: int, arguments: tuple[Any, ...]) -> None:
        if self.launches is not None:
            values = tuple(one.data_ptr() if isinstance(one, torch.Tensor) else one for one in arguments)
            self.launches.append(Launch(kernel, grid, stream, values))


@contextmanager
def pretended() -> Iterator[Gpu]:
    """A GPU that is not there, for CPU tensors, in the block."""
    gpu = Gpu()

    def compiled(source: Any, target: Any = None, options: Any = None, **_: Any) -> Compiled:
        return Compiled(source, options, gpu)

    before = driver._active
    driver.set_active(gpu)
    plans.forget()
    environment = {"TRITON_DEFAULT_FP_FUSION": "1"}  # as triton 3.9 does, without its warning
    try:
        with (
            mock.patch.object(triton.compiler, "compile", compiled),
            mock.patch.dict(os.environ, environment),
            _gpu.interpreted(),
        ):
            yield gpu
    finally:
        driver.set_active(before)
        plans.forget()
