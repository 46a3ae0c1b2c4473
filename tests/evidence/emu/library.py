"""The emulated library in a process: its operators in place of the CPU's, its launches counted or handed over."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

import hybridkern  # noqa: F401  the schemas
from tests.evidence.cuda_library import OPERATORS
from tests.evidence.emu.build import emulated_library

Launch = Callable[[str, int, int, bytes], None]  # kernel, blocks, threads of a block, argument
_LAUNCHER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_size_t)


@cache
def _loaded() -> ctypes.CDLL:
    path = str(emulated_library())
    torch.ops.load_library(path)
    library = ctypes.CDLL(path)
    library.hybridkern_emulated_launches.restype = ctypes.c_ulong
    return library


def launches() -> int:
    """Kernels launched so far in this process."""
    return int(_loaded().hybridkern_emulated_launches())


def operator(name: str) -> torch._ops.OpOverload:
    """The emulated operator."""
    _loaded()
    return getattr(torch.ops.hybridkern_emulated, name).default


def serve_cpu(implementation: Callable[[str], Callable[..., Any]] = operator) -> torch.library.Library:
    """Gives the operators to CPU tensors, until the library that is returned is destroyed."""
    library = torch.library.Library("hybridkern", "IMPL")
    for name in OPERATORS:
        library.impl(name, implementation(name), "CPU", allow_override=True)
    return library


@contextmanager
def handed_over(launch: Launch) -> Iterator[None]:
    """In the block, ``launch`` is called in place of the kernels; what it raises is raised at the end of the block."""
    raised: list[BaseException] = []

    def call(description: bytes, blocks: int, threads: int, argument: int, size: int) -> None:
        try:
            if not raised:
                name = description.decode().split("Kernel = ", 1)[1].split("; Argument", 1)[0]
                launch(name, blocks, threads, ctypes.string_at(argument, size))
        except BaseException as error:  # nothing may pass through the C++ frames below
            raised.append(error)

    launcher = _LAUNCHER(call)
    _loaded().hybridkern_emulated_set_launcher(launcher)
    try:
        yield
    finally:
        _loaded().hybridkern_emulated_set_launcher(None)
    if raised:
        raise raised[0]
