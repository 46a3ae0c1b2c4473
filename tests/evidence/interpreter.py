"""Triton kernels under Triton's interpreter, every access to memory recorded.

``with audited() as audits:`` around any code that launches kernels collects one :class:`Audit` a launch. The
environment variable ``TRITON_INTERPRET=1`` must be set before triton is imported (``make evidence`` does).
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

from tests.evidence.launches import Launch, Recorder, inside_operators
from tests.evidence.shadow import ATOMIC, LOAD, STORE, Finding, Shadow, Usage, of_kind, tensors_of

_Builder = interpreter.InterpreterBuilder
_OPTIONS = ("num_warps", "num_stages", "num_ctas", "maxnreg")


@dataclass(frozen=True)
class Audit:
    """What one launch did to its arguments."""

    launch: Launch
    findings: tuple[Finding, ...]
    usage: Mapping[str, Usage]
    atomics: int

    def of_kind(self, kind: str) -> list[Finding]:
        """The findings of one kind."""
        return of_kind(self.findings, kind)


def bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """float32 numbers as the bits of bfloat16, rounded to nearest even as a GPU does."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), np.uint64(0x7FC0), rounded).astype(np.uint16)


@contextmanager
def rounded_bfloat16() -> Iterator[None]:
    """Triton 3.9's interpreter cuts float32 off to bfloat16 where a GPU rounds to nearest even: do as the GPU.

    And it multiplies matrices of the bits of bfloat16 numbers.
    """
    original, multiply = _Builder.cast_impl, _Builder.create_dot

    def wide(value: Any) -> Any:
        if value.dtype.scalar != tl.bfloat16:
            return value
        bits = np.ascontiguousarray(value.data).view(np.uint16).astype(np.uint32) << 16
        return interpreter.TensorHandle(bits.view(np.float32), tl.float32)

    def dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return multiply(self, wide(a), wide(b), *rest)

    def cast(self: Any, source: Any, target: Any) -> Any:
        if source.dtype.scalar == tl.float32 and target.scalar == tl.bfloat16:
            return interpreter.TensorHandle(bfloat16_bits(source.data), tl.bfloat16)
        return original(self, source, target)

    # the two others are bound to the original at class creation
    with ExitStack() as stack:
        for name in ("cast_impl", "create_fp_ext", "create_fp_trunc"):
            stack.enter_context(mock.patch.object(_Builder, name, cast))
        stack.enter_context(mock.patch.object(_Builder, "create_dot", dot))
        yield


class _Observer:
    """Stands between the interpreter and memory while launches run."""

    def __init__(self, recorder: Recorder, order: str, seed: int) -> None:
        self.audits: list[Audit] = []
        self.shadow: Shadow | None = None
        self.program = 0
        self._recorder = recorder
        self._order, self._random = order, random.Random(seed)
        self._sequence: list[int] = []
        self._kept = {
            name: getattr(_Builder, name)
            for name in ("create_masked_load", "create_masked_store", "create_atomic_rmw", "create_atomic_cas")
            + ("set_grid_dim", "set_grid_idx", "create_barrier")
        }
        self._run = interpreter.GridExecutor.__call__

    def patches(self) -> dict[str, Callable[..., Any]]:
        """Replacements of the interpreter's methods."""
        return {
            "create_masked_load": lambda own, *a, **k: self._load(own, *a, **k),
            "create_masked_store": lambda own, *a, **k: self._store(own, *a, **k),
            "create_atomic_rmw": lambda own, *a, **k: self._modify(own, *a, **k),
            "create_atomic_cas": lambda own, *a, **k: self._exchange(own, *a, **k),
            "set_grid_dim": lambda own, *a: self._begin(own, *a),
            "set_grid_idx": lambda own, *a: self._program(own, *a),
            "create_barrier": lambda own: self._shadow().barrier(),
        }

    def execute(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """Runs one launch and audits it."""
        launch = launch_of(executor, args, kwargs)
        self.shadow = Shadow(tensors_of(launch.arguments), self._recorder.unwritten)
        with np.errstate(all="ignore"):
            result = self._run(executor, *args, **kwargs)
        self.shadow.finish()
        audit = Audit(launch, tuple(self.shadow.findings), self.shadow.usage(), self.shadow.atomics)
        self.audits.append(audit)
        self.shadow = None
        return result

    def _shadow(self) -> Shadow:
        assert self.shadow is not None, "memory was touched outside a launch"
        return self.shadow

    def _checked(self, kind: str, pointers: Any, mask: np.ndarray) -> Any:
        """The mask without the accesses that lie outside of the arguments."""
        width = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        addresses, active = np.broadcast_arrays(pointers.data, mask)
        allowed = np.array(active, bool)
        allowed[active] = self._shadow().record(kind, addresses[active], width, self.program)
        return interpreter.TensorHandle(allowed, tl.int1)

    def _load(self, own: Any, pointers: Any, mask: Any, *rest: Any, **named: Any) -> Any:
        return self._kept["create_masked_load"](own, pointers, self._checked(LOAD, pointers, mask.data), *rest, **named)

    def _store(self, own: Any, pointers: Any, value: Any, mask: Any, *rest: Any, **named: Any) -> Any:
        mask = self._checked(STORE, pointers, mask.data)
        return self._kept["create_masked_store"](own, pointers, value, mask, *rest, **named)

    def _modify(self, own: Any, op: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        mask = self._checked(ATOMIC, pointers, mask.data)
        return self._kept["create_atomic_rmw"](own, op, pointers, value, mask, *rest)

    def _exchange(self, own: Any, pointers: Any, *rest: Any) -> Any:
        self._checked(ATOMIC, pointers, np.ones_like(pointers.data, dtype=bool))
        return self._kept["create_atomic_cas"](own, pointers, *rest)

    def _begin(self, own: Any, x: int, y: int, z: int) -> None:
        self._kept["set_grid_dim"](own, x, y, z)
        self._sequence = list(range(x * y * z))
        if self._order == "shuffled":
            self._random.shuffle(self._sequence)
        elif self._order == "reversed":
            self._sequence.reverse()

    def _program(self, own: Any, x: int, y: int, z: int) -> None:
        _, height, depth = own.grid_dim
        self.program = self._sequence[(x * height + y) * depth + z]
        self._shadow().barrier()
        place = self.program // (height * depth), self.program // depth % height, self.program % depth
        self._kept["set_grid_idx"](own, *place)


def launch_of(executor: Any, args: Any, kwargs: Any) -> Launch:
    """What the interpreter is asked to run."""
    function = executor.fn
    parameters = inspect.signature(function).parameters
    options = {name: value for name, value in kwargs.items() if name in _OPTIONS and name not in parameters}
    arguments = inspect.getcallargs(function, *args, **{k: v for k, v in kwargs.items() if k in parameters})
    grid = executor.grid(arguments) if callable(executor.grid) else executor.grid
    sizes = (*grid, 1, 1)
    name = f"{function.__module__}:{function.__name__}"
    return Launch(name, (int(sizes[0]), int(sizes[1]), int(sizes[2])), arguments, options)


@contextmanager
def audited(order: str = "in order", seed: int = 0) -> Iterator[list[Audit]]:
    """Collects an audit of every launch in the block. Accesses outside of the arguments are noted and left out.

    Args:
        order: of the programs of a launch: ``"in order"``, ``"reversed"`` or ``"shuffled"``.
        seed: of the shuffling.
    """
    if order not in ("in order", "reversed", "shuffled"):
        raise ValueError(f"order: got {order!r}, expected 'in order', 'reversed' or 'shuffled'")
    with ExitStack() as stack:
        stack.enter_context(rounded_bfloat16())
        recorder = stack.enter_context(Recorder())
        stack.enter_context(inside_operators(recorder))
        observer = _Observer(recorder, order, seed)
        for name, patch in observer.patches().items():
            stack.enter_context(mock.patch.object(_Builder, name, patch))
        run = lambda own, *args, **kwargs: observer.execute(own, *args, **kwargs)  # noqa: E731
        stack.enter_context(mock.patch.object(interpreter.GridExecutor, "__call__", run))
        yield observer.audits


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Collects the launches of the block; none of them is carried out."""
    launches: list[Launch] = []

    def note(executor: Any, *args: Any, **kwargs: Any) -> None:
        launches.append(launch_of(executor, args, kwargs))

    with mock.patch.object(interpreter.GridExecutor, "__call__", note):
        yield launches
