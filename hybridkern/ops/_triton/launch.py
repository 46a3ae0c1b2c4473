"""The one place that launches a kernel: eagerly, or into the graph that ``torch.compile`` is tracing.

Eagerly a kernel is called as it is. While an operator is decomposed for the compiler, ``wrap_triton`` puts the launch
into the graph as a node whose kernel Inductor sees; asking it in eager mode as well would cost a check a launch.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

_tracing = False


class traced:  # noqa: N801 - used as a context manager
    """While active, launches are recorded in the graph."""

    def __enter__(self) -> None:
        global _tracing
        self._before, _tracing = _tracing, True

    def __exit__(self, *_: object) -> None:
        global _tracing
        _tracing = self._before


def launch(kernel: Any, programs: int, like: Tensor, *args: Any, **constants: Any) -> None:
    """Launch ``programs`` programs of ``kernel`` on the device of ``like``; none if there are none."""
    if programs == 0:
        return
    if _tracing:
        torch.library.wrap_triton(kernel)[(programs,)](*args, **constants)
        return
    with _device_of(like):
        kernel[(programs,)](*args, **constants)


def _device_of(like: Tensor) -> AbstractContextManager[object]:
    if like.is_cuda and like.device.index != torch.cuda.current_device():
        return torch.cuda.device(like.device.index)
    return nullcontext()
