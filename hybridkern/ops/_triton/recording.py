"""Records what a launcher does on the device, as Python code that does it again and nothing else.

A launcher asks about layouts, chooses tiles and views memory; what is left of it are allocations, launches and a few
operators of PyTorch. These become straight lines: sizes, tiles, compiled kernels and constants are written into them,
and memory is handed to kernels as addresses.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.jit import JITFunction

from hybridkern.ops._operator import Outputs

Replay = Callable[..., Outputs | None]  # of the stream and the arguments; None where it cannot be done so
_ALIGNED = 16  # bytes; what Triton compiles kernels for
_EMPTY = {f"aten::{name}" for name in ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")}
# a call of an overload costs twice that of its function
_QUICK = {getattr(torch.ops.aten.mm, overload): torch.mm for overload in ("default", "out", "dtype_out")}


class _Root(NamedTuple):
    """A tensor that is there by itself, and its name in the code; others are views of one."""

    name: str
    value: Tensor


class _NotKeptError(Exception):
    """Something was done that another call might have to do otherwise."""


def freed(lines: Sequence[str], names: Sequence[str]) -> list[str]:
    """The lines, without those that make what nobody uses; names are deleted after the line that needs them last."""
    places: dict[str, list[int]] = {}
    for name in names:
        used = re.compile(rf"\b(p_)?{name}\b")  # itself, or an address in it
        places[name] = [place for place, line in enumerate(lines) if used.search(line)]
    done = []
    for place, line in enumerate(lines):
        if any(found == [place] and line.startswith(f"{name} = empty(") for name, found in places.items()):
            continue
        done.append(line)
        gone = [name for name, found in places.items() if found[-1] == place < len(lines) - 1]
        done += [f"del {', '.join(gone)}"] if gone else []
    return done


class Recorder(TorchDispatchMode):
    """While active, notes what a launcher asks of PyTorch; :func:`~hybridkern.ops._triton.launch.launch` adds launches.

    Args:
        args: those of the launcher.
    """

    def __init__(self, args: Sequence[Any]) -> None:
        super().__init__()
        self.kept = True  # as long as all of it can be done again
        self._arguments = [f"a{place}" for place in range(len(args))]
        self._lines: list[str] = []
        self._names: dict[str, Any] = {"empty": torch.empty_strided, "view": torch.as_strided}
        self._by_id: dict[int, _Root] = {}
        self._by_storage: dict[int, list[_Root]] = defaultdict(list)
        self._pointers: dict[str, str] = {}
        self._unchecked: list[str] = []  # addresses of new memory that no launch has seen yet
        self._alive: list[Any] = []  # so that nothing is taken for another at the same place
        for name, value in zip(self._arguments, args, strict=True):
            if isinstance(value, Tensor):
                self._root(name, value)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operator and notes it, unless it makes a view."""
        out = func(*args, **(kwargs or {}))
        self._alive.append(out)
        try:
            if not isinstance(out, Tensor):
                self._views(args, out)
            elif func._schema.name in _EMPTY:
                self._allocation(out)
            elif func._schema.is_mutable or self._place(out) not in self._by_storage:
                self._operation(func, args, kwargs or {}, out)
        except _NotKeptError:
            self.kept = False
        return out

    def launched(
        self, kernel: Any, compiled: Any, programs: int, args: Sequence[Any], given: Mapping[str, Any]
    ) -> None:
        """Note a launch that was made: of a compiled kernel, with arguments in order and by name."""
        if compiled is None or type(kernel) is not JITFunction or kernel.pre_run_hooks:
            self.kept = False
            return
        values = dict(zip(kernel.arg_names, args, strict=False)) | dict(given)
        try:
            parts = [self._argument(values[name]) for name in kernel.arg_names]
        except (_NotKeptError, KeyError):
            self.kept = False
            return
        if self._unchecked:
            self._lines.append(f"if ({' | '.join(self._unchecked)}) & {_ALIGNED - 1}: return None")
            self._unchecked.clear()
        self._alive.append(compiled)
        of = (self._name("run", compiled.run), self._name("metadata", compiled.packed_metadata))
        head = f"{programs}, 1, 1, stream, {compiled.function!r}, {of[1]}, None, None, None"
        self._lines.append(f"{of[0]}({', '.join([head, *parts])})")

    def finish(self, outputs: Outputs) -> Replay | None:
        """The function ``(stream, *arguments)`` that does the same; ``None`` where there is none."""
        several = isinstance(outputs, tuple)
        made = [root.name for roots in self._by_storage.values() for root in roots if root.name not in self._arguments]
        try:
            found = [self._tensor(value) for value in (outputs if isinstance(outputs, tuple) else (outputs,))]
        except _NotKeptError:
            self.kept = False
        if not self.kept:
            return None
        result = f"({', '.join(found)},)" if several else found[0]
        body = "".join(f"    {line}\n" for line in freed([*self._lines, f"return {result}"], made))
        exec(f"def replay({', '.join(['stream', *self._arguments])}):\n{body}", self._names)
        self._names["kept"] = [one for one in self._alive if not isinstance(one, (Tensor, tuple, list))]
        replay: Replay = self._names["replay"]
        return replay

    def _name(self, kind: str, value: Any) -> str:
        name = f"{kind}{len(self._names)}"
        self._names[name] = value
        return name

    @staticmethod
    def _place(value: Tensor) -> int:
        place: int = value.untyped_storage()._cdata
        return place

    def _root(self, name: str, value: Tensor) -> None:
        root = _Root(name, value)
        self._by_id.setdefault(id(value), root)
        if all(one.value is not value for one in self._by_storage[self._place(value)]):
            self._by_storage[self._place(value)].append(root)

    def _owner(self, value: Tensor) -> _Root:
        """What a tensor is, or is a view of."""
        own = self._by_id.get(id(value))
        if own is not None:
            return own
        roots = self._by_storage.get(self._place(value), [])
        if len(roots) != 1 or roots[0].value.dtype is not value.dtype:
            raise _NotKeptError  # arguments that share memory lie to each other otherwise in another call
        return roots[0]

    def _tensor(self, value: Tensor) -> str:
        root = self._owner(value)
        if root.value is value:
            return root.name
        start = value.storage_offset() - root.value.storage_offset()
        if (value.shape, value.stride(), start) == (root.value.shape, root.value.stride(), 0):
            return root.name
        at = f"{root.name}.storage_offset() + {start}" if root.name in self._arguments else value.storage_offset()
        return f"view({root.name}, {tuple(value.shape)}, {value.stride()}, {at})"

    def _pointer(self, value: Tensor) -> str:
        if value.numel() == 0:
            return "0"
        root = self._owner(value)
        name = self._pointers.get(root.name)
        if name is None:
            name = self._pointers[root.name] = f"p_{root.name}"
            self._lines.append(f"{name} = {root.name}.data_ptr()")
            if root.name not in self._arguments:
                self._unchecked.append(name)
        start = value.data_ptr() - root.value.data_ptr()
        return f"{name} + {start}" if start else name

    def _argument(self, value: Any) -> str:
        if isinstance(value, Tensor):
            return self._pointer(value)
        return repr(value) if value is None or type(value) in (int, bool) else self._name("constant", value)

    def _views(self, args: Sequence[Any], out: Any) -> None:
        """Several views are found by their memory; an answer is kept where it is not about a tensor."""
        if isinstance(out, (tuple, list)):
            known = all(isinstance(value, Tensor) and self._place(value) in self._by_storage for value in out)
        else:
            known = not any(isinstance(value, Tensor) for value in args)
        if not known:
            raise _NotKeptError

    def _allocation(self, out: Tensor) -> None:
        name = f"r{len(self._lines)}"
        made = f"dtype={self._name('dtype', out.dtype)}, device={self._name('device', out.device)}"
        self._lines.append(f"{name} = empty({tuple(out.shape)}, {out.stride()}, {made})")
        self._root(name, out)

    def _operation(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> None:
        function = self._name("operator", _QUICK.get(func, func))
        parts = [self._operand(value) for value in args]
        parts += [f"{name}={self._operand(value)}" for name, value in kwargs.items()]
        call = f"{function}({', '.join(parts)})"
        if self._place(out) in self._by_storage:
            self._lines.append(call)
            return
        name = f"r{len(self._lines)}"
        self._lines.append(f"{name} = {call}")
        self._root(name, out)

    def _operand(self, value: Any) -> str:
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, (tuple, list)) and any(isinstance(one, Tensor) for one in value):
            raise _NotKeptError
        return self._name("constant", value)
