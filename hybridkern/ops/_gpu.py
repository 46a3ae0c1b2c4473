"""Attaches the Triton kernels to the operators' schemas for the dispatch key CUDA, which ROCm shares.

What is attached is a stub that imports its launcher at the first call, so that ``import hybridkern`` never loads
triton. The stub is an ordinary kernel of the dispatcher: an eager call costs what any operator in Python costs, and no
``custom_op`` wrapper around it. For ``torch.compile`` each operator has the rule that ``torch.library.triton_op``
would register: while AOTAutograd functionalizes, the launcher runs with its launches wrapped, so that Inductor sees
the kernels rather than an opaque operator. (``triton_op`` itself defines a schema of its own and an eager path through
``custom_op`` that takes six times as long as ``.default``.)

Where the CUDA library has registered a kernel for an operator, that one stays under the dispatch key; whoever chooses
Triton there calls the launcher itself (:func:`run`).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch._subclasses.functional_tensor import FunctionalTensorMode
from torch.nn import Parameter

from hybridkern._extension import cuda_library, nodes
from hybridkern.ops._memory import check_whole
from hybridkern.ops._operator import LIBRARY, OPERATORS, Operator


class _State:
    """What serves CUDA tensors here."""

    def __init__(self) -> None:
        self.has_triton = importlib.util.find_spec("triton") is not None
        self.native: frozenset[str] = frozenset()  # operators that the CUDA library serves
        self.interpreted = False  # Triton's kernels run on CPU tensors, for tests


state = _State()


def triton_operators() -> frozenset[str]:
    """Names of the operators that have Triton kernels; none where the package is missing."""
    return frozenset(name for name, operator in OPERATORS.items() if operator.triton and state.has_triton)


@cache
def launcher(part: str) -> Callable[..., Any]:
    """The launcher of a registered part of an operator, a plain function of tensors. Imports triton."""
    module = importlib.import_module(f"hybridkern.ops.{_owner(part).name}.triton")
    found: Callable[..., Any] = module.OPERATORS[part]
    return found


@cache
def _launched(part: str) -> Callable[..., Any]:
    """The launcher behind its plans, for arguments that the public function has checked. Imports triton."""
    from hybridkern.ops._triton.plans import Plans

    return Plans(lambda *args: launcher(part)(*args))


def _owner(part: str) -> Operator:
    return next(operator for operator in OPERATORS.values() if part in operator.parts)


def runner(operator: Operator, part: str) -> Callable[..., Any]:
    """The function ``(backend, *args)`` that runs a part of an operator on a backend that serves it.

    It goes through the dispatcher, or past the CUDA library's kernel to Triton's.
    """
    # Closed over by names: Dynamo of torch 2.10 takes no object of ours from the closure of a function in a closure.
    kernel, name, whole = operator.kernels[part], operator.name, f"{operator.name}_{part}"

    def call(backend: str, *args: Any) -> Any:
        if backend == "triton" and _past_native(name, args[0]):
            for value in args:  # here, not in a function: a call of one costs as much as the loop
                if isinstance(value, torch.Tensor) and value.is_neg():
                    args = _as_they_lie(args)
                    break
            return _launched(whole)(*args)
        return kernel(*args)

    return call


def run(operator: Operator, part: str, backend: str, *args: Any) -> Any:
    """What the :func:`runner` of that part does."""
    if backend == "triton" and _past_native(operator.name, args[0]):
        return _launched(f"{operator.name}_{part}")(*_as_they_lie(args))
    return operator.kernels[part](*args)


def backward_of(operator: Operator) -> Callable[..., Any]:
    """A ``Gradient.backward`` that gives the part ``backward`` what most take: gradient, saved tensors and options."""
    call = runner(operator, "backward")

    def backward(backend: str, saved: Any, grads: Any, options: Any, needs: Any) -> Any:
        return call(backend, grads[0], *saved, *options)

    return backward


def _past_native(name: str, x: Any) -> bool:
    native = name in state.native and not torch.compiler.is_compiling()
    return native and type(x) in (torch.Tensor, Parameter)


def _as_they_lie(args: Sequence[Any]) -> tuple[Any, ...]:
    """Views whose numbers count as negated, negated: the dispatcher would do so, and a kernel does not look."""
    return tuple(value.resolve_neg() if isinstance(value, torch.Tensor) else value for value in args)


def _stub(operator: Operator, part: str) -> Callable[..., Any]:
    names = [argument.name for argument in operator.kernels[part.removeprefix(f"{operator.name}_")]._schema.arguments]

    def run(*args: Any, **named: Any) -> Any:
        for name, value in (*zip(names, args, strict=False), *named.items()):
            if isinstance(value, torch.Tensor):
                check_whole(name, value)
        return launcher(part)(*args, **named)

    checked = operator.checked(part.removeprefix(f"{operator.name}_"), run)
    planned: Callable[..., Any] | None = None

    def kernel(*args: Any, **named: Any) -> Any:
        nonlocal planned
        if planned is None:
            from hybridkern.ops._triton.plans import Plans

            planned = Plans(checked)  # a plan's arguments are of a kind that was checked
        return planned(*args, **named)

    return kernel


def _decomposition(operator: Operator, part: str) -> Callable[..., Any]:
    """The rule of a part under functionalization: its launches, where Triton would serve it."""

    def rule(mode: Any, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not _takes_triton(operator, args[0]) or _exports():
            return mode.__torch_dispatch__(op, types, args, kwargs)
        from hybridkern.ops._triton.launch import traced

        with mode, traced():
            return launcher(part)(*args, **kwargs)

    return rule


def _takes_triton(operator: Operator, x: torch.Tensor) -> bool:
    from hybridkern.ops._backends import choose

    return x.device.type == "cuda" and choose(operator, x) == "triton"


def _exports() -> bool:
    from torch.export._trace import custom_triton_ops_decomposition_disabled

    return bool(custom_triton_ops_decomposition_disabled())


def _is_served(part: str, key: str) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(f"hybridkern::{part}", key))


def attach() -> None:
    """Load the CUDA library and attach every operator that it does not serve; to be called once."""
    if cuda_library().loaded:
        served = [o for o in OPERATORS.values() if o.parts and all(_is_served(part, "CUDA") for part in o.parts)]
        state.native = frozenset(operator.name for operator in served)
    serve = getattr(nodes.module, "serve_cuda", None)  # none in a library built from older sources: for CPU tensors
    if serve is not None:
        serve([*state.native, *triton_operators()])
    if not state.has_triton:
        return
    for operator in OPERATORS.values():
        for part in operator.parts if operator.triton else ():
            if operator.name not in state.native:
                LIBRARY.impl(part, _stub(operator, part), "CUDA")
            torch.library.register_torch_dispatch(
                f"hybridkern::{part}", FunctionalTensorMode, _decomposition(operator, part), lib=LIBRARY
            )


@contextmanager
def interpreted() -> Iterator[None]:
    """For tests: the launchers serve CPU tensors, over the C++ kernels, in the block."""
    library = torch.library.Library("hybridkern", "IMPL")
    before, state.interpreted = state.interpreted, True
    try:
        for operator in OPERATORS.values():
            for part in operator.parts if operator.triton else ():
                library.impl(part, _stub(operator, part), "CPU")
        yield
    finally:
        state.interpreted = before
        library._destroy()
