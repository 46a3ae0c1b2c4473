"""Attaches the Triton kernels to the operators' schemas for the dispatch key CUDA, which ROCm shares.

What is attached is a stub that imports its launcher at the first call, so that ``import hybridkern`` never loads
triton. The stub is an ordinary kernel of the dispatcher: an eager call costs what any operator in Python costs, and no
``custom_op`` wrapper around it. For ``torch.compile`` each operator has the rule that ``torch.library.triton_op``
would register: while AOTAutograd functionalizes, the launcher runs with its launches wrapped, so that Inductor sees
the kernels rather than an opaque operator. (``triton_op`` itself defines a schema of its own and an eager path through
``custom_op`` that takes six times as long as ``.default``.)

Where the CUDA library has registered a kernel for an operator, that one stays; :func:`prefer_triton` covers it for a
time.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch._subclasses.functional_tensor import FunctionalTensorMode

from hybridkern.ops._library import LIBRARY

# Operator of the library -> module of hybridkern.triton; the part before _forward and _backward is the public name.
TRITON_MODULES = {
    f"{module}_{part}": module
    for module, parts in {
        "affine_coupling": ("forward", "backward", "backward_from_output"),
        "rounding_coupling": ("forward", "backward"),
        "discretized_logistic": ("forward", "backward"),
        "discretized_logistic_mixture": ("forward", "backward"),
        "gaussian_log_prob": ("forward", "backward"),
        "paired_conv1x1": ("forward", "backward"),
    }.items()
    for part in parts
}
TRITON_OPERATORS = frozenset(TRITON_MODULES.values())
HAS_TRITON: bool = importlib.util.find_spec("triton") is not None

native: frozenset[str] = frozenset()
"""Names in ``TRITON_OPERATORS`` that the CUDA library serves."""
_triton_chosen = False


@cache
def launcher(name: str) -> Callable[..., Any]:
    """The launcher of operator ``name``, a plain function of tensors. Imports triton."""
    module = importlib.import_module(f"hybridkern.triton.{TRITON_MODULES[name]}")
    found: Callable[..., Any] = module.OPERATORS[name]
    return found


def _stub(name: str) -> Callable[..., Any]:
    def kernel(*args: Any, **named: Any) -> Any:
        return launcher(name)(*args, **named)

    return kernel


def _decomposition(name: str) -> Callable[..., Any]:
    """The rule of operator ``name`` under functionalization: its launches, where Triton would serve it."""

    def rule(mode: Any, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        on_gpu = args[0].device.type == "cuda"
        if not on_gpu or (TRITON_MODULES[name] in native and not _triton_chosen) or _exports():
            return mode.__torch_dispatch__(op, types, args, kwargs)
        from hybridkern.triton._launch import traced

        with mode, traced():
            return launcher(name)(*args, **kwargs)

    return rule


def _exports() -> bool:
    from torch.export._trace import custom_triton_ops_decomposition_disabled

    return bool(custom_triton_ops_decomposition_disabled())


def _is_served(name: str, key: str) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(f"hybridkern::{name}", key))


def attach() -> None:
    """Attach every operator that the CUDA library, loaded before, does not serve; to be called once."""
    global native
    native = frozenset(module for name, module in TRITON_MODULES.items() if _is_served(name, "CUDA"))
    if not HAS_TRITON:
        return
    for name in TRITON_MODULES:
        if not _is_served(name, "CUDA"):
            LIBRARY.impl(name, _stub(name), "CUDA")
        torch.library.register_torch_dispatch(
            f"hybridkern::{name}", FunctionalTensorMode, _decomposition(name), lib=LIBRARY
        )


@contextmanager
def prefer_triton(key: str = "CUDA") -> Iterator[None]:
    """Serve every operator of ``key`` by Triton, also those that the CUDA library has.

    ``key="CPU"`` is for tests under ``TRITON_INTERPRET=1``: the same launchers on CPU tensors.
    """
    global _triton_chosen
    covered = [name for name in TRITON_MODULES if key != "CUDA" or TRITON_MODULES[name] in native]
    library = torch.library.Library("hybridkern", "IMPL") if covered else None
    before, _triton_chosen = _triton_chosen, True
    try:
        for name in covered:
            assert library is not None
            library.impl(name, _stub(name), key)
        yield
    finally:
        _triton_chosen = before
        if library is not None:
            library._destroy()
