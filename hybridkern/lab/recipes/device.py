"""Where a run computes, and which of several processes this is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from hybridkern.lab.recipes.errors import RecipeError

DEVICES = ("auto", "cpu", "cuda")
CPU = torch.device("cpu")
_BF16 = (8, 0)  # the compute capability from which on bfloat16 is multiplied by the hardware


def chosen(name: str) -> torch.device:
    """The device of a setting ``auto`` (a GPU where torch sees one), ``cpu`` or ``cuda`` (ROCm too).

    Raises:
        RecipeError: ``cuda``, and torch sees no such device.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise RecipeError("--device: got 'cuda', but torch sees no CUDA or ROCm device; expected cpu or auto")
    return torch.device("cuda") if name == "cuda" or (name == "auto" and there) else CPU


def current(device: torch.device) -> torch.device:
    """That of this process, where each has a GPU of its own."""
    return torch.device("cuda", torch.cuda.current_device()) if device.type == "cuda" else device


def multiplies_bf16() -> bool:
    """Whether every GPU that torch sees multiplies bfloat16 matrices itself."""
    if torch.version.hip is not None:
        return torch.cuda.is_bf16_supported()
    return all(torch.cuda.get_device_capability(i) >= _BF16 for i in range(torch.cuda.device_count()))


@contextmanager
def placed(module: nn.Module, device: torch.device) -> Iterator[None]:
    """``module`` on ``device`` in the block, and on the CPU afterwards, from where it is saved and handed on."""
    module.to(device)
    try:
        yield
    finally:
        module.to(CPU)


def launched() -> tuple[int, int] | None:
    """Rank and number of the processes, where torchrun or SLURM has started them; ``None`` where one was started."""
    for rank, count in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if rank in os.environ and int(os.environ.get(count, "1")) > 1:
            return int(os.environ[rank]), int(os.environ[count])
    return None


def follows() -> bool:
    """Whether another process of this run, the first one, keeps its folder."""
    started = launched()
    return started is not None and started[0] > 0


def require_processes(devices: int, nodes: int) -> None:
    """Those that were started must be those that the settings name.

    Raises:
        RecipeError: they are not; or several machines, and nobody has started processes on them.
    """
    started = launched()
    if started is None:
        if nodes > 1:
            raise RecipeError(f"--nodes: got {nodes}, expected torchrun or SLURM to have started a process a device")
    elif started[1] != devices * nodes:
        raise RecipeError(
            f"--devices, --nodes: got {devices} x {nodes}, but {started[1]} processes were started; expected as many"
        )
