"""The CUDA library's operators on CPU tensors, their kernels executed as the PTX that the library is built of.

The host code is the library's own, compiled by g++; what it launches is handed over here.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.evidence.cuda_library import SOURCES, ptx_of
from tests.evidence.emu.library import handed_over, operator, serve_cpu
from tests.evidence.ptx import Execution, Kernel, execute, parse, split


@dataclass(frozen=True)
class Run:
    """An execution of a kernel, named as in C++ without namespaces."""

    kernel: str
    execution: Execution


class _Tensors(TorchDispatchMode):
    """Collects what PyTorch's operators return below one of ours: the memory that its kernels may touch."""

    def __init__(self, arguments: Any) -> None:
        super().__init__()
        self.tensors: dict[str, Tensor] = {}
        self._add(arguments)

    def _add(self, values: Any) -> None:
        for value in tree_leaves(values):
            if isinstance(value, Tensor) and value.numel():
                self.tensors[f"tensor {len(self.tensors)}"] = value

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operator and keeps its results."""
        result = func(*args, **(kwargs or {}))
        self._add(result)
        return result


@cache
def demangled(name: str) -> str:
    """The name of a kernel in C++, without return type, arguments and namespaces.

    Raises:
        ValueError: it is no mangled name.
    """
    demangle = ctypes.CDLL("libstdc++.so.6").__cxa_demangle
    demangle.restype = ctypes.c_void_p
    status = ctypes.c_int()
    pointer = demangle(name.encode(), None, None, ctypes.byref(status))
    if not pointer:
        raise ValueError(f"name: got {name!r}, expected a mangled name of C++")
    text = ctypes.string_at(pointer).decode()
    ctypes.CDLL(None).free(ctypes.c_void_p(pointer))
    return _short(text.removeprefix("void ").split("(", 1)[0])


def _short(name: str) -> str:
    return re.sub(r"\bhk::(cuda::)?", "", name)


@cache
def texts() -> dict[str, str]:
    """PTX of the library's kernels, by name."""
    parts = [split(ptx_of(source).decode()) for source in SOURCES]
    return {demangled(mangled): text for part in parts for mangled, text in part.items()}


@cache
def kernel(name: str) -> Kernel:
    """A kernel by its C++ name."""
    return parse(texts()[name])


@contextmanager
def executed(seed: int | None = 0) -> Iterator[list[Run]]:
    """In the block, the operators of the CUDA library serve CPU tensors by way of their PTX; collects the runs."""
    runs: list[Run] = []

    def implementation(name: str) -> Callable[..., Any]:
        emulated = operator(name)

        def call(*args: Any) -> Any:
            memory = _Tensors(args)

            def launch(kernel_name: str, blocks: int, threads: int, argument: bytes) -> None:
                short = _short(kernel_name)
                done = execute(kernel(short), (blocks, 1, 1), threads, [argument], memory.tensors, seed=seed)
                runs.append(Run(short, done))

            with handed_over(launch), memory:  # below the operator, PyTorch's calls pass through `memory`
                return emulated.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *args)

        return call

    library = serve_cpu(implementation)
    try:
        yield runs
    finally:
        library._destroy()
