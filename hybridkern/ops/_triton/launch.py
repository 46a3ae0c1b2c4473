"""The one place that launches a kernel: eagerly, or into the graph that ``torch.compile`` is tracing.

Eagerly a kernel is called as it is. While an operator is decomposed for the compiler, ``wrap_triton`` puts the launch
into the graph as a node whose kernel Inductor sees; asking it in eager mode as well would cost a check a launch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
import triton.language as tl
from torch import Tensor

from hybridkern.ops._triton.layout import Operand, Order, alignment, extent_of, needs_wide
from hybridkern.ops._triton.tiles import Tile

_state = threading.local()  # of this thread: whether its launches are traced, and who records them


class Recording(Protocol):
    """Is told of each launch."""

    def launched(
        self, kernel: Any, compiled: Any, programs: int, args: Sequence[Any], given: Mapping[str, Any]
    ) -> None:
        """A launch that was made, and the compiled kernel."""


@contextmanager
def recorded_by(recording: Recording) -> Iterator[None]:
    """Launches of the block, in this thread, are made and told."""
    before, _state.recording = getattr(_state, "recording", None), recording
    try:
        yield
    finally:
        _state.recording = before


class traced:  # noqa: N801 - used as a context manager
    """While active, launches of this thread are recorded in the graph: others go on, and may be recording plans."""

    def __enter__(self) -> None:
        self._before = getattr(_state, "tracing", False)
        _state.tracing = True

    def __exit__(self, *_: object) -> None:
        _state.tracing = self._before


def launch(kernel: Any, programs: int, like: Tensor, *args: Any, **constants: Any) -> None:
    """Launch ``programs`` programs of ``kernel`` on the device of ``like``; none if there are none."""
    if programs == 0:
        return
    if getattr(_state, "tracing", False):
        torch.library.wrap_triton(kernel)[(programs,)](*args, **constants)
        return
    with _device_of(like):
        compiled = kernel[(programs,)](*args, **constants)
    recording: Recording | None = getattr(_state, "recording", None)
    if recording is not None:
        recording.launched(kernel, compiled, programs, args, constants)


def launch_tiles(
    kernel: Any,
    tile: Tile,
    order: Order,
    tensors: Sequence[Tensor | None],
    operands: Mapping[str, Operand],
    starts: Sequence[int] = (),
    numbers: Sequence[float] = (),
    /,
    **constants: Any,
) -> None:
    """Launch a kernel that walks over the elements of examples by the tile.

    Its arguments are, in this order, ``tensors``; rows, columns, extent, steps and chunks; the strides of each operand;
    ``starts``, offsets into operands that stay aligned; ``numbers``. Its constants are ``constants``, ``NAME_DENSE`` of
    each operand, and WIDE, WORK, ROWS, COLUMNS and ALIGN. The first operand decides on the working type and the device.
    """
    every = list(operands.values())
    like = every[0].tensor
    launch(
        kernel,
        tile.programs,
        like,
        *(*tensors, order.rows, order.columns, extent_of(order), tile.steps, tile.chunks),
        *(stride for one in every for stride in one.strides),
        *(*starts, *numbers),
        **constants,
        **{f"{name}_DENSE": one.dense for name, one in operands.items()},
        WIDE=needs_wide(order, tile, every, starts, shared=bool(constants.get("SHARED"))),
        WORK=work_of(like),
        ROWS=tile.rows,
        COLUMNS=tile.columns,
        ALIGN=alignment(order, every, *starts),
        num_warps=tile.warps,
    )


def work_of(x: Tensor) -> Any:
    """Triton's dtype in which the kernels compute."""
    return tl.float64 if x.dtype is torch.float64 else tl.float32


def _device_of(like: Tensor) -> AbstractContextManager[object]:
    if like.is_cuda and like.device.index != torch.cuda.current_device():
        return torch.cuda.device(like.device.index)
    return nullcontext()
