"""Chooses the backend of an operator: the only place that does.

Automatic choice takes the compiled kernels where the tensor's device has them and falls back to the reference
backend otherwise, saying so once. An explicit choice (``use_backend`` or ``HYBRIDKERN_BACKEND``) never falls back.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from hybridkern import _env
from hybridkern._extension import extension
from hybridkern.ops import _gpu

BACKENDS = ("reference", "cpp", "triton", "cuda")


class BackendStatus(NamedTuple):
    """Whether a backend can be used here, and why (not)."""

    available: bool
    reason: str


_HAS_CPP: bool = extension.module is not None
_chosen: str = "auto"
_told: bool = False


_interpreted: bool = False


def _gpu_status(name: str) -> BackendStatus:
    if name == "triton" and not _gpu.HAS_TRITON:
        return BackendStatus(False, "the package triton is not installed")
    if name == "triton" and _interpreted:
        return BackendStatus(True, "Triton kernels, interpreted on CPU tensors")
    if not torch.cuda.is_available():
        return BackendStatus(False, "torch sees no CUDA or ROCm device")
    if name == "triton":
        return BackendStatus(True, "Triton kernels, compiled at first use")
    if torch.version.hip is not None:
        return BackendStatus(False, "the CUDA library does not serve ROCm; Triton does")
    if not _gpu.native:
        return BackendStatus(False, "the CUDA library was not built or not loaded")
    return BackendStatus(True, f"compiled CUDA kernels of {', '.join(sorted(_gpu.native))}")


def backends() -> dict[str, BackendStatus]:
    """State of every backend on this machine.

    Returns:
        ``{"reference" | "cpp" | "triton" | "cuda": BackendStatus(available, reason)}``.
    """
    return {
        "reference": BackendStatus(True, "plain PyTorch, any device"),
        "cpp": BackendStatus(_HAS_CPP, extension.reason),
        "triton": _gpu_status("triton"),
        "cuda": _gpu_status("cuda"),
    }


def _require(name: str) -> None:
    if name != "auto" and name not in BACKENDS:
        raise ValueError(f"backend: got {name!r}, expected 'auto' or one of {', '.join(map(repr, BACKENDS))}")
    if name != "auto" and not (status := backends()[name]).available:
        raise RuntimeError(f"backend {name!r} is not available: {status.reason}")


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run every operator inside the ``with`` block on one backend, process-wide.

    Args:
        name: ``"reference"``, ``"cpp"``, ``"triton"``, ``"cuda"``, or ``"auto"`` for the automatic choice.

    Raises:
        ValueError: no backend has that name.
        RuntimeError: the backend cannot be used here; the message gives the reason. Also raised by an operator
            whose tensors live on a device which the chosen backend does not serve: it never falls back.
    """
    global _chosen
    _require(name)
    before, _chosen = _chosen, name
    try:
        with _gpu.prefer_triton() if name == "triton" else nullcontext():
            yield
    finally:
        _chosen = before


@contextmanager
def interpret_triton() -> Iterator[None]:
    """For tests under ``TRITON_INTERPRET=1`` alone: ``use_backend("triton")`` serves CPU tensors in the block.

    Raises:
        RuntimeError: the kernels are, or would be, compiled for a GPU: CPU tensors are beyond their reach.
    """
    global _interpreted
    if os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError("TRITON_INTERPRET: expected 1 before triton is imported, to run its kernels on CPU tensors")
    before, _interpreted = _interpreted, True
    try:
        with _gpu.prefer_triton("CPU"):
            yield
    finally:
        _interpreted = before


def _tell_fallback(device: str) -> None:
    global _told
    if _told or torch.compiler.is_compiling():
        return
    _told = True
    reason = extension.reason if device == "cpu" else backends()["triton"].reason
    warnings.warn(f"hybridkern runs on the reference backend (plain PyTorch): {reason}", RuntimeWarning, stacklevel=4)


def select(x: Tensor, operator: str = "") -> str:
    """Name of the backend that runs ``operator``, the name of its file, on ``x``.

    Raises:
        RuntimeError: a backend was chosen explicitly and does not serve the device of ``x``, or not that operator.
    """
    if _chosen == "auto":
        if x.is_cpu and _HAS_CPP:
            return "cpp"
        if x.is_cuda and (found := _on_gpu(operator)):
            return found
        _tell_fallback(x.device.type)
        return "reference"
    if _chosen == "cpp" and not x.is_cpu:
        raise RuntimeError(f"backend 'cpp' was chosen and serves CPU tensors only, but x is on {x.device}")
    if _chosen in ("triton", "cuda"):
        _require_gpu(x, operator)
    return _chosen


def _on_gpu(operator: str) -> str:
    """The backend of that operator on CUDA tensors: the CUDA library first; empty if there is none."""
    if operator in _gpu.native:
        return "cuda"
    return "triton" if _gpu.HAS_TRITON and operator in _gpu.TRITON_OPERATORS else ""


def _require_gpu(x: Tensor, operator: str) -> None:
    if not x.is_cuda and not (_interpreted and x.is_cpu and _chosen == "triton"):
        raise RuntimeError(f"backend {_chosen!r} was chosen and serves CUDA and ROCm tensors, but x is on {x.device}")
    served = _gpu.native if _chosen == "cuda" else _gpu.TRITON_OPERATORS
    if operator not in served:
        raise RuntimeError(
            f"backend {_chosen!r} was chosen and has no kernel of {operator or 'this operator'}; "
            f"it has {', '.join(sorted(served))}"
        )


def _set_default() -> None:
    global _chosen
    try:
        _require(_env.BACKEND)
    except (ValueError, RuntimeError) as error:
        raise type(error)(f"HYBRIDKERN_BACKEND={_env.BACKEND}: {error}") from None
    _chosen = _env.BACKEND


_set_default()
