"""A recorded Triton launch, executed as the PTX that it compiles to."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tests.evidence.launches import Launch
from tests.evidence.ptx import Execution, execute, parse
from tests.evidence.shadow import element_bytes, tensors_of
from tests.evidence.triton_compile import compile_launch


@dataclass(frozen=True)
class Run:
    """An execution with the least traffic that its arguments allow, in bytes: each touched once."""

    execution: Execution
    minimum: int

    @property
    def traffic(self) -> float:
        """Sectors moved, as a multiple of the minimum."""
        return self.execution.sectors.bytes / self.minimum


def parameter_bytes(value: Any) -> bytes:
    """A run-time argument as a GPU's launcher passes it."""
    if isinstance(value, torch.Tensor):
        return struct.pack("<Q", value.data_ptr())
    if isinstance(value, bool):
        return struct.pack("<B", value)
    if isinstance(value, int):
        return struct.pack("<i" if -(2**31) <= value < 2**31 else "<q", value)
    return struct.pack("<f", value)


def run_ptx(launch: Launch, target: str, arguments: Mapping[str, Any] | None = None, seed: int | None = 0) -> Run:
    """Executes the launch on its own tensors, or on others of the same kind.

    Raises:
        tests.evidence.ptx.Fault: the code cannot be executed to its end.
    """
    compiled = compile_launch(launch, target)
    values = dict(launch.arguments if arguments is None else arguments)
    tensors = tensors_of(values)
    execution = execute(
        parse(compiled.text("ptx")),
        launch.grid,
        compiled.threads,
        [parameter_bytes(values[name]) for name in compiled.parameters],
        tensors,
        shared=compiled.shared,
        seed=seed,
    )
    return Run(execution, minimum_bytes(tensors))


def minimum_bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    """Bytes of the elements of all tensors, overlapping ones once."""
    touched: dict[int, set[int]] = {}
    total = 0
    for tensor in tensors.values():
        own = element_bytes(tensor) if tensor.numel() else ()
        seen = touched.setdefault(tensor.untyped_storage().data_ptr(), set())
        if seen:
            own = [byte for byte in own if byte not in seen]
        total += len(own)
        seen.update(own)
    return total
