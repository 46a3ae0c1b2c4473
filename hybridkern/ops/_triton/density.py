"""What the launchers of the densities share: elements of ``x`` with parameters that may be shared by the batch."""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from hybridkern.ops._triton.layout import Operand, Order, operand


def work_of(x: Tensor) -> Any:
    """Dtype in which the kernels compute."""
    return tl.float64 if x.dtype is torch.float64 else tl.float32


def total_dtype(x: Tensor) -> torch.dtype:
    """Dtype of totals and partial sums."""
    return torch.float64 if x.dtype is torch.float64 else torch.float32


def strides(*operands: Operand) -> tuple[int, ...]:
    """Batch, outer and inner strides of each."""
    return tuple(stride for one in operands for stride in (one.batch, one.outer, one.inner))


def is_shared(param: Tensor, x: Tensor) -> bool:
    """Whether the whole batch shares ``param``, so that its gradient is a sum over examples."""
    return param.shape[0] == 1 and x.shape[0] != 1


def gradient_of(value: Tensor | None, order: Order, like: Tensor, reduced: bool) -> Operand:
    """The incoming gradient: one number an example, or one an element. ``like`` stands in for none."""
    if value is None or reduced:
        source = like if value is None else value
        return Operand(source, 0 if value is None else value.stride(0), 0, 0, False)
    return operand(value, order)
