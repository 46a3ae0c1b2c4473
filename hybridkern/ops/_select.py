"""Chooses the backend of an operator: the only place that does.

Automatic choice takes the compiled kernels where the tensor's device has them and falls back to the reference
backend otherwise, saying so once. An explicit choice (``use_backend`` or ``HYBRIDKERN_BACKEND``) never falls back.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from hybridkern import _env
from hybridkern._extension import extension

BACKENDS = ("reference", "cpp", "triton", "cuda")


class BackendStatus(NamedTuple):
    """Whether a backend can be used here, and why (not)."""

    available: bool
    reason: str


_HAS_CPP: bool = extension.module is not None
_chosen: str = "auto"
_told: bool = False


def _gpu_status(name: str) -> BackendStatus:
    if not torch.cuda.is_available():
        return BackendStatus(False, "torch sees no CUDA or ROCm device")
    if name == "triton" and importlib.util.find_spec("triton") is None:
        return BackendStatus(False, "the package triton is not installed")
    return BackendStatus(False, "this version has no GPU kernels yet; GPU tensors run on the reference backend")


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
        yield
    finally:
        _chosen = before


def _tell_fallback(device: str) -> None:
    global _told
    if _told or torch.compiler.is_compiling():
        return
    _told = True
    reason = extension.reason if device == "cpu" else backends()["triton"].reason
    warnings.warn(f"hybridkern runs on the reference backend (plain PyTorch): {reason}", RuntimeWarning, stacklevel=4)


def select(x: Tensor) -> str:
    """Name of the backend that runs an operator on ``x``.

    Raises:
        RuntimeError: a backend was chosen explicitly and does not serve the device of ``x``.
    """
    if _chosen == "auto":
        if x.is_cpu and _HAS_CPP:
            return "cpp"
        _tell_fallback(x.device.type)
        return "reference"
    if _chosen == "cpp" and not x.is_cpu:
        raise RuntimeError(f"backend 'cpp' was chosen and serves CPU tensors only, but x is on {x.device}")
    return _chosen


def _set_default() -> None:
    global _chosen
    try:
        _require(_env.BACKEND)
    except (ValueError, RuntimeError) as error:
        raise type(error)(f"HYBRIDKERN_BACKEND={_env.BACKEND}: {error}") from None
    _chosen = _env.BACKEND


_set_default()
