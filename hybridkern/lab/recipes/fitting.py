"""Whether a checkpoint is one of the model that is to go on from it: by weights and optimizer state."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from hybridkern.lab.recipes.errors import RecipeError

_WEIGHTS = ("state_dict", "current_model_state")
_SECOND = {"exp_inf", "exp_avg_sq"}  # what Adamax, Adam and AdamW hold beside the average of the gradients


def require_fit(path: Path, checkpoint: dict[str, Any], module: pl.LightningModule) -> None:
    """Raises RecipeError, which names ``path``, where a checkpoint of Lightning does not fit ``module``.

    ``state_dict``, the weights that a running average keeps beside them, and the states of the optimizer are looked at:
    PyTorch itself takes a state of any shape, and fails in the first step.
    """
    fault = None
    for name in _WEIGHTS:
        if name in checkpoint:
            fault = fault or _weights_fault(checkpoint[name], module.state_dict())
    if "optimizer_states" in checkpoint:
        fault = fault or _optimizer_fault(checkpoint["optimizer_states"], _optimizer(module))
    if fault:
        raise RecipeError(f"{path}: does not fit the model ({fault})")


def _weights_fault(found: Any, expected: dict[str, Tensor]) -> str | None:
    if not isinstance(found, dict):
        return f"weights: got {type(found).__name__}, expected a dictionary"
    for name in chain(expected, found):
        if name not in found:
            return f"it has no {name}"
        if name not in expected:
            return f"it has {name}, the model has not"
        fault = _tensor_fault(found[name], expected[name])
        if fault:
            return f"{name}: {fault}"
    return None


def _tensor_fault(found: Any, expected: Tensor) -> str | None:
    if not isinstance(found, Tensor) or found.layout != torch.strided:
        return f"got {type(found).__name__}, expected a dense tensor"
    if found.shape != expected.shape:
        return f"got shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    if found.dtype != expected.dtype:
        return f"got {found.dtype}, expected {expected.dtype}"
    return None


def _optimizer(module: pl.LightningModule) -> torch.optim.Optimizer:
    """An optimizer as training makes it; it is made for its groups and looked at, not used."""
    made: Any = module.configure_optimizers()
    optimizer: torch.optim.Optimizer = made["optimizer"] if isinstance(made, dict) else made
    return optimizer


def _optimizer_fault(found: Any, optimizer: torch.optim.Optimizer) -> str | None:
    try:
        (state,) = found
        groups, states = state["param_groups"], state["state"]
        pairs = list(zip(groups, optimizer.param_groups, strict=True))
        for group, own in pairs:
            fault = _group_fault(group, own)
            if fault:
                return f"optimizer: {fault}"
        indices = [index for group, _ in pairs for index in group["params"]]
        parameters = [parameter for _, own in pairs for parameter in own["params"]]
        if indices != list(range(len(parameters))) or not set(states) <= set(indices):
            return f"optimizer: its states are not those of {len(parameters)} parameters"
        for index, held in states.items():
            fault = _state_fault(held, parameters[index])
            if fault:
                return f"optimizer state of parameter {index}: {fault}"
    except (KeyError, TypeError, ValueError, AttributeError):
        return (
            f"optimizer: its state is not one of {type(optimizer).__name__} with {len(optimizer.param_groups)} groups"
        )
    return None


def _group_fault(found: dict[str, Any], own: dict[str, Any]) -> str | None:
    if len(found["params"]) != len(own["params"]):
        return f"got {len(found['params'])} parameters in a group, expected {len(own['params'])}"
    for name, value in own.items():
        # numbers may be of either kind: a learning rate of 1 and one of 1.0 are the same
        kinds = (int, float) if type(value) in (int, float) else type(value)
        if not isinstance(found[name], kinds):
            return f"{name}: got {found[name]!r}, expected something like {value!r}"
    return None


def _state_fault(held: dict[str, Any], parameter: Tensor) -> str | None:
    if not {"step", "exp_avg"} < set(held) or not set(held) - {"step", "exp_avg"} <= _SECOND or len(held) != 3:
        return f"got {', '.join(sorted(map(str, held)))}, expected those of another optimizer"
    step = held["step"]
    if not isinstance(step, (int, float)) and not (isinstance(step, Tensor) and step.numel() == 1):
        return f"step: got {type(step).__name__}, expected a number"
    for name, value in held.items():
        fault = None if name == "step" else _tensor_fault(value, parameter)
        if fault:
            return f"{name}: {fault}"
    return None
