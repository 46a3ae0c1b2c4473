"""What the launchers of the densities share: elements of ``x`` with parameters that may be shared by the batch."""

from __future__ import annotations

from torch import Tensor

from hybridkern.ops._triton.layout import Operand, Order, operand


def is_shared(param: Tensor, x: Tensor) -> bool:
    """Whether the whole batch shares ``param``, so that its gradient is a sum over examples."""
    return param.shape[0] == 1 and x.shape[0] != 1


def gradient_of(value: Tensor, order: Order, reduced: bool) -> Operand:
    """The incoming gradient: one number per example, or one per element."""
    return Operand(value, value.stride(0), 0, 0, False, per_example=True) if reduced else operand(value, order)
