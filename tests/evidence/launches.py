"""What a piece of code launches on a GPU: Triton kernels, and the operators of PyTorch that are kernels there.

Nothing needs a GPU for that: under the interpreter a Triton kernel is called with CPU tensors, and PyTorch's
dispatcher shows every operator by name on any device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operators that allocate or answer from metadata; views are told by their schema. None of them is a kernel.
_FREE = {
    "aten::empty",
    "aten::empty_like",
    "aten::empty_strided",
    "aten::new_empty",
    "aten::new_empty_strided",
    "aten::detach",
    "aten::alias",
    "aten::_unsafe_view",
    "aten::_reshape_alias",
    "aten::lift_fresh",
}
_UNINITIALIZED = {name for name in _FREE if "empty" in name}


@dataclass(frozen=True)
class Launch:
    """One launch of a Triton kernel: ``module:name``, grid, arguments by name, and compiler options."""

    kernel: str
    grid: tuple[int, int, int]
    arguments: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The kernel's own name, after that of its file."""
        module, name = self.kernel.split(":")
        *_, folder, file = module.split(".")  # an operator's kernels lie in ops/<op>/triton.py
        return f"{folder if file == 'triton' else file}.{name}"


def is_view(func: torch._ops.OpOverload) -> bool:
    """The operator returns a view of an argument and writes nothing."""
    aliased = [r.alias_info is not None for r in func._schema.returns]
    return bool(aliased) and all(aliased) and not func._schema.is_mutable


class Recorder(TorchDispatchMode):
    """Collects the names of PyTorch operators that a GPU would launch a kernel for, while it is active.

    ``unwritten`` holds, for the storages allocated meanwhile without a value, which bytes nobody has written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[str] = []
        self.unwritten: dict[int, np.ndarray] = {}
        self._keep: list[Any] = []  # so that no address is handed out twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operator and notes what it was."""
        name = func._schema.name
        result = func(*args, **(kwargs or {}))
        if name in _UNINITIALIZED:
            storage = result.untyped_storage()
            self._keep.append(storage)
            self.unwritten[storage.data_ptr()] = np.ones(storage.nbytes(), bool)
        elif name not in _FREE and not is_view(func):
            # an operator of ours is what it launches, and a question about types is none
            if not name.startswith("hybridkern::") and any(isinstance(r, Tensor) for r in tree_leaves(result)):
                self.operators.append(name)
            self._written(func, args, kwargs or {})
        return result

    def _written(self, func: Any, args: Any, kwargs: Any) -> None:
        for i, declared in enumerate(func._schema.arguments):
            value = args[i] if i < len(args) else kwargs.get(declared.name)
            if declared.alias_info is not None and declared.alias_info.is_write and isinstance(value, Tensor):
                self.unwritten.pop(value.untyped_storage().data_ptr(), None)


@contextmanager
def inside_operators(recorder: Recorder) -> Iterator[None]:
    """The recorder also sees what the launchers of our operators do, which run below the dispatcher."""
    from hybridkern.ops import _gpu

    find = _gpu.launcher

    def launcher(name: str) -> Callable[..., Any]:
        real = find(name)

        def run(*args: Any, **kwargs: Any) -> Any:
            with recorder:
                return real(*args, **kwargs)

        return run

    with mock.patch.object(_gpu, "launcher", launcher):
        yield


def launched_operators(function: Callable[[], object]) -> list[str]:
    """The PyTorch operators, in order, for which a GPU would launch a kernel."""
    with Recorder() as recorder:
        function()
    return recorder.operators
