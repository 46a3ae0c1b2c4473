"""A recorded Triton launch, executed as the PTX that it compiles to."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from triton.runtime import interpreter

from tests.evidence.interpreter import launch_of
from tests.evidence.launches import Launch
from tests.evidence.ptx import Execution, execute, parse
from tests.evidence.shadow import tensors_of
from tests.evidence.triton_compile import compile_launch


@dataclass(frozen=True)
class Run:
    """An execution of a launch."""

    launch: Launch
    execution: Execution

    def bytes(self, without: Collection[str] = ()) -> tuple[int, int]:
        """Bytes of the sectors moved, and the least for what was done: every byte touched once.

        Args:
            without: arguments to leave out; they must have been read only, and whole.
        """
        found = self.execution
        moved = found.sectors.bytes - sum(found.moved[name] for name in without)
        return moved, found.touched - sum(found.usage[name].size for name in without)

    @property
    def traffic(self) -> float:
        """Bytes of the sectors moved, as a multiple of the least."""
        moved, least = self.bytes()
        return moved / least


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
    execution = execute(
        parse(compiled.text("ptx")),
        launch.grid,
        compiled.threads,
        [parameter_bytes(values[name]) for name in compiled.parameters],
        tensors_of(values),
        shared=compiled.shared,
        seed=seed,
    )
    return Run(launch, execution)


@contextmanager
def compiled_for(target: str, seed: int | None = 0) -> Iterator[list[Run]]:
    """In the block, every launch executes the PTX that it compiles to for this target; collects the runs.

    So a test of an operator, with its comparison with float64, becomes one of the compiled code.
    """
    runs: list[Run] = []

    def run(executor: Any, *args: Any, **kwargs: Any) -> None:
        runs.append(run_ptx(launch_of(executor, args, kwargs), target, seed=seed))

    with mock.patch.object(interpreter.GridExecutor, "__call__", run):
        yield runs
