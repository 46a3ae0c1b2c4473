"""Chooses the backend of an operator: the only place that does.

Automatic choice takes the compiled kernels where the tensor's device has them and falls back to the reference
backend otherwise, saying so once. An explicit choice (``use_backend`` or ``HYBRIDKERN_BACKEND``) is a list in order
of preference: the first name that serves operator, device and dtype runs, or an error says why none of them does.

The choice belongs to the context (a thread, an asyncio task), so others do not see it. What is recorded for the
backward pass keeps the backend of its forward pass. ``torch.compile`` cannot read a ``ContextVar``: while it traces, a
copy of the choice in thread-local storage is read, on which it guards.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ContextDecorator, contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor

from hybridkern import _env
from hybridkern._extension import cuda_library, extension, nodes
from hybridkern._values import transformed
from hybridkern.ops import _gpu
from hybridkern.ops._operator import Operator

_Choices = tuple[tuple[str, ...], ...]
BACKENDS = ("reference", "cpp", "triton", "cuda")


class BackendStatus(NamedTuple):
    """Whether a backend can be used here, and why (not)."""

    available: bool
    reason: str


class _State:
    """What decides beside the tensors: what is installed, and what was asked for."""

    def __init__(self) -> None:
        self.has_cpp = extension.module is not None
        self.default: tuple[str, ...] = ()  # as every name list here: empty is the automatic choice
        self.asked: ContextVar[_Choices] = ContextVar("hybridkern backends", default=())  # outermost first
        self.traced = threading.local()
        self.unasked = True  # nobody has asked for anything yet: the usual case, which one look settles
        self.told = False

    def names(self) -> tuple[str, ...]:
        """What was asked for in this context."""
        if torch.compiler.is_compiling():
            found: tuple[str, ...] | None = getattr(self.traced, "names", None)
            return self.default if found is None else found
        asked = self.asked.get()
        return asked[-1] if asked else self.default


state = _State()


def _gpu_status(name: str) -> BackendStatus:
    if name == "triton" and not _gpu.state.has_triton:
        return BackendStatus(False, "the package triton is not installed")
    if name == "triton" and _gpu.state.interpreted:
        return BackendStatus(True, "Triton kernels, interpreted on CPU tensors")
    if name == "cuda" and _gpu.state.native:
        return BackendStatus(True, f"{cuda_library().reason}; operators: {', '.join(sorted(_gpu.state.native))}")
    if not torch.cuda.is_available():
        return BackendStatus(False, "torch sees no CUDA or ROCm device")
    if name == "triton":
        return BackendStatus(True, "Triton kernels, compiled at first use")
    return BackendStatus(False, cuda_library().reason)


def _cpp_reason() -> str:
    return extension.reason if nodes.module or not state.has_cpp else f"{extension.reason}; off: {nodes.reason}"


def backends() -> dict[str, BackendStatus]:
    """State of every backend on this machine.

    Returns:
        ``{"reference" | "cpp" | "triton" | "cuda": BackendStatus(available, reason)}``.
    """
    return {
        "reference": BackendStatus(True, "plain PyTorch, any device"),
        "cpp": BackendStatus(state.has_cpp, _cpp_reason()),
        "triton": _gpu_status("triton"),
        "cuda": _gpu_status("cuda"),
    }


def _checked(names: Sequence[str]) -> tuple[str, ...]:
    """The names themselves; ``()`` for the automatic choice alone.

    Raises:
        ValueError: no backend has that name, or there is no name.
        RuntimeError: none of them can be used here.
    """
    for name in names:
        if name != "auto" and name not in BACKENDS:
            raise ValueError(f"backend: got {name!r}, expected 'auto' or one of {', '.join(map(repr, BACKENDS))}")
    if not names:
        raise ValueError("backend: got no name, expected 'auto' or one of " + ", ".join(map(repr, BACKENDS)))
    if tuple(names) == ("auto",):
        return ()
    table = backends()
    if not any(name == "auto" or table[name].available for name in names):
        reasons = "; ".join(f"backend {name!r} is not available: {table[name].reason}" for name in names)
        raise RuntimeError(reasons)
    return tuple(names)


class _Choice(ContextDecorator):
    """A choice for ``with`` blocks, as many as one likes: one after the other, one inside the other, in any thread."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def __enter__(self) -> None:
        state.unasked = False
        if not torch.compiler.is_compiling():
            state.asked.set((*state.asked.get(), self._names))
        state.traced.blocks = (*getattr(state.traced, "blocks", ()), self._names)
        state.traced.names = self._names

    def __exit__(self, *_: object) -> None:
        if not torch.compiler.is_compiling():
            state.asked.set(state.asked.get()[:-1])
        state.traced.blocks = state.traced.blocks[:-1]
        state.traced.names = state.traced.blocks[-1] if state.traced.blocks else None


def use_backend(*names: str) -> _Choice:
    """Run every operator inside the ``with`` block on the first of these backends that serves it.

    The choice holds in the current context: other threads and asyncio tasks do not see it, threads started inside the
    block neither. A backward pass runs on the backend of its forward pass, wherever it is called. What it returns may
    be kept, entered again, and used as a decorator.

    Args:
        names: ``"reference"``, ``"cpp"``, ``"triton"``, ``"cuda"``, in order of preference; ``"auto"`` is the
            automatic choice.

    Raises:
        ValueError: no backend has that name.
        RuntimeError: none of them can be used here; the message gives the reasons. Also raised by an operator which
            none of them serves: an explicit choice never falls back.
    """
    return _Choice(_checked(names))


def backend_names() -> tuple[str, ...]:
    """What was asked for in this context, for :func:`as_chosen`; empty is the automatic choice."""
    return state.names()


@contextmanager
def as_chosen(names: tuple[str, ...]) -> Iterator[None]:
    """Inside the block the choice is what :func:`backend_names` gave at another time: for what runs a piece again."""
    with use_backend(*names or ("auto",)):
        yield


@contextmanager
def interpret_triton() -> Iterator[None]:
    """For tests under ``TRITON_INTERPRET=1`` alone: ``use_backend("triton")`` serves CPU tensors in the block.

    Raises:
        RuntimeError: the kernels are, or would be, compiled for a GPU: CPU tensors are beyond their reach.
    """
    if os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError("TRITON_INTERPRET: expected 1 before triton is imported, to run its kernels on CPU tensors")
    with _gpu.interpreted():
        yield


def choose(operator: Operator, x: Tensor) -> str:
    """Name of the backend that runs ``operator`` on ``x``; under a transform of ``torch.func`` the formulas alone.

    Raises:
        RuntimeError: backends were chosen explicitly, and none serves the operator on this device and dtype.
    """
    if transformed():
        return "reference"
    if state.unasked and x.is_cpu and x.dtype in operator.dtypes and state.has_cpp:
        return "cpp"
    names = state.names()
    if not names:
        if x.is_cpu and state.has_cpp and x.dtype in operator.dtypes:
            return "cpp"
        return _automatic(operator, x)
    reasons = []
    for name in names:
        if name == "auto":
            return _automatic(operator, x)
        reason = _why_not(name, operator, x)
        if not reason:
            return name
        reasons.append(f"backend {name!r} was chosen and {reason}")
    raise RuntimeError("; ".join(reasons))


def _automatic(operator: Operator, x: Tensor) -> str:
    for name in ("cuda", "triton", "cpp"):
        if not _why_not(name, operator, x):
            return name
    _tell_fallback(operator, x)
    return "reference"


def _why_not(name: str, operator: Operator, x: Tensor) -> str:
    """Why a backend does not serve ``operator`` on ``x``; empty if it does."""
    if name == "reference":
        return ""
    if name == "cpp":
        if not x.is_cpu:
            return f"serves CPU tensors only, but x is on {x.device}"
        if not state.has_cpp:
            return f"is not available: {extension.reason}"
        if x.dtype in operator.dtypes:
            return ""
        return f"has no kernel of {operator.name}{f' in {x.dtype}' if operator.dtypes else ''}"
    if not x.is_cuda and not (name == "triton" and _gpu.state.interpreted and x.is_cpu):
        return f"serves CUDA and ROCm tensors, but x is on {x.device}"
    served = _gpu.state.native if name == "cuda" else _gpu.triton_operators()
    if (operator.made_of or operator.name) in served:
        return ""
    return f"has no kernel of {operator.name}; it has {', '.join(sorted(served))}"


def _tell_fallback(operator: Operator, x: Tensor) -> None:
    """Say once that plain PyTorch runs where kernels were to be expected."""
    device = x.device.type
    missing = not state.has_cpp if device == "cpu" else not _gpu.state.has_triton if device == "cuda" else False
    if state.told or torch.compiler.is_compiling() or not missing:
        return
    state.told = True
    reason = extension.reason if device == "cpu" else backends()["triton"].reason
    warnings.warn(f"hybridkern runs on the reference backend (plain PyTorch): {reason}", RuntimeWarning, stacklevel=5)


def set_default() -> None:
    """Take the default from ``HYBRIDKERN_BACKEND``; to be called once, after the operators are registered."""
    try:
        state.default = _checked([name.strip() for name in _env.BACKEND.split(",")])
        state.unasked = not state.default
    except (ValueError, RuntimeError) as error:
        raise type(error)(f"HYBRIDKERN_BACKEND={_env.BACKEND}: {error}") from None
