"""Launch plans: what a launcher did for one kind of arguments, kept, and done again without its Python.

On a GPU the host needs longer to launch the kernels of small works than the device to run them, and most of that is
spent on finding out, call by call, what was found out before. All that a launcher decides, and all that Triton compiles
a kernel for, hangs on what :func:`key_of` holds: sizes, strides, dtypes, devices, the place of each tensor within 16
bytes, and options to the bit. The stream is asked for at each call. The second call of a kind is recorded, so that what
never comes twice costs nothing.

No plan is used where somebody watches Triton's launches (its launch hooks; Proton), where Triton's kernels are
interpreted, with a Triton whose way to launch is not known here, and under ``HYBRIDKERN_TRITON_PLANS=0``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch
import triton
from torch import Tensor
from triton import knobs
from triton.runtime import driver

from hybridkern._env import TRITON_PLANS
from hybridkern.ops._memory import is_whole
from hybridkern.ops._triton import launch
from hybridkern.ops._triton.recording import Recorder, Replay

# whose CompiledKernel.run takes grid, stream, function, metadata, three hooks and all arguments, pointers as integers
_KNOWN = ((3, 5), (3, 9))
_MOST = 512  # kinds of calls that an operator keeps plans of; beyond, it starts anew
_PLANS: WeakSet[Plans] = WeakSet()
_SEEN, _NEVER = object(), object()

known = _KNOWN[0] <= tuple(map(int, triton.__version__.split(".")[:2])) <= _KNOWN[1]
_on = known and TRITON_PLANS and not knobs.runtime.interpret


@contextmanager
def launcher_by_launcher() -> Iterator[None]:
    """For tests and comparisons: no plan is used in the block, and none is made."""
    global _on
    before, _on = _on, False
    try:
        yield
    finally:
        _on = before


def forget() -> None:
    """Drop every plan."""
    for plans in _PLANS:
        plans.kept.clear()


def key_of(args: Sequence[Any]) -> tuple[Any, ...]:
    """All that a launcher may decide by: two calls with one key launch the same kernels in the same way."""
    key: list[Any] = []
    for arg in args:
        if isinstance(arg, Tensor):
            # the address to 16 bytes: what views of it start at must be aligned alike
            address = arg.data_ptr()
            place = address & 15 if address >> 32 else _low(arg)
            key += (arg.shape, arg.stride(), arg.dtype, arg.get_device(), place)
        elif type(arg) is float:
            key.append(struct.pack("d", arg))  # to the bit: 0.0 and -0.0 are two constants, and NaN is itself
        elif type(arg) in (list, tuple):
            key.append(struct.pack(f"{len(arg)}d", *arg))
        else:
            key.append(arg)
    return tuple(key)


def _low(value: Tensor) -> int:
    """The place of a low address, which freed memory has too; that gets a place of its own, and no plan."""
    return value.data_ptr() & 15 if is_whole(value) else -1


def _repeats(args: Sequence[Any]) -> bool:
    """Whether a tensor is given twice: a recording could not tell which of the two a launcher read."""
    tensors = [id(arg) for arg in args if isinstance(arg, Tensor)]
    return len(set(tensors)) < len(tensors)


class Plans:
    """Runs a part of an operator: by the plan for arguments of this kind, and by its launcher where there is none.

    Args:
        run: checks the arguments and calls the launcher.
    """

    def __init__(self, run: Callable[..., Any]) -> None:
        self._run = run
        self.kept: dict[tuple[Any, ...], Any] = {}
        _PLANS.add(self)

    def __call__(self, *args: Any, **named: Any) -> Any:
        """What the launcher gives for these arguments."""
        runtime = knobs.runtime
        if not _on or named or runtime.launch_enter_hook.calls or runtime.launch_exit_hook.calls:
            return self._run(*args, **named)
        active = driver.active
        device = active.get_current_device()
        where = args[0].get_device()
        if where >= 0 and where != device:
            with torch.cuda.device(where):
                return self(*args)
        key = (device, runtime.debug, knobs.compilation.instrumentation_mode, *key_of(args))
        plan = self.kept.get(key)
        if plan is None or plan is _SEEN or plan is _NEVER:
            return self._first(key, plan, args)
        out = plan(active.get_current_stream(device), *args)
        return self._run(*args) if out is None else out

    def _first(self, key: tuple[Any, ...], before: object, args: Sequence[Any]) -> Any:
        if before is _NEVER:
            return self._run(*args)
        if len(self.kept) >= _MOST:
            self.kept.clear()
        if before is None or _repeats(args):
            out = self._run(*args)
            self.kept[key] = _SEEN
            return out
        recorder = Recorder(args)
        with launch.recorded_by(recorder), recorder:
            out = self._run(*args)
        plan: Replay | None = recorder.finish(out)
        self.kept[key] = _NEVER if plan is None else plan
        return out
