"""Whether the state of Adamax fits its parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hybridkern._tensors import shape_text
from hybridkern.ops._memory import is_dense, meets_itself

ENTRIES = ("exp_avg", "exp_inf")


def begin(params: list[Tensor], states: list[dict[str, Any]]) -> None:
    """Fills the states that are empty, as PyTorch's class does."""
    for param, state in zip(params, states, strict=True):
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(param, memory_format=torch.preserve_format)
            state["exp_inf"] = torch.zeros_like(param, memory_format=torch.preserve_format)


def mend(optimizer: torch.optim.Optimizer, params: list[Tensor], states: list[dict[str, Any]]) -> bool:
    """Lays the entries of these states in memory as their parameters lie; True if an entry had to be moved.

    So a checkpoint of a model in another memory format is taken, and an entry that was replaced by a view.

    Raises:
        TypeError, ValueError: an entry that is missing, or of another shape, dtype or device than its parameter;
            numbers are those of ``state_dict()["state"]``.
    """
    moved = False
    for param, state in zip(params, states, strict=True):
        for name in ENTRIES:
            value = state.get(name)
            _check(value, param, name, optimizer)
            assert isinstance(value, Tensor)
            if value.stride() != param.stride() and is_dense(param) and not meets_itself(value):
                state[name] = torch.empty_like(param).copy_(value)
                moved = True
    return moved


def _check(value: object, param: Tensor, name: str, optimizer: torch.optim.Optimizer) -> None:
    def refuse(error: type[Exception], got: object, expected: object) -> Exception:
        return error(f"{name} of parameter {_number_of(param, optimizer)}: got {got}, expected {expected}")

    if not isinstance(value, Tensor):
        raise refuse(TypeError, "nothing" if value is None else type(value).__name__, "a torch.Tensor")
    if value.layout is not torch.strided or value.is_nested:
        raise refuse(TypeError, f"layout {value.layout}", "an ordinary dense tensor")
    if value.shape != param.shape:
        raise refuse(
            ValueError, f"shape {shape_text(value.shape)}", f"{shape_text(param.shape)}, that of the parameter"
        )
    if value.device != param.device:
        raise refuse(ValueError, f"device {value.device}", f"{param.device}, that of the parameter")
    if name == "exp_avg" and value.dtype is not param.dtype:  # of exp_inf PyTorch takes other ones
        raise refuse(TypeError, f"dtype {value.dtype}", f"{param.dtype}, that of the parameter")


def _number_of(param: Tensor, optimizer: torch.optim.Optimizer) -> int:
    every = [p for group in optimizer.param_groups for p in group["params"]]
    return next(i for i, p in enumerate(every) if p is param)
