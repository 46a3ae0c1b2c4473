"""How many kernels a GPU would launch for an operator, or for a step of Glow, and for the eager formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

import hybridkern
from tests.evidence.interpreter import recorded
from tests.evidence.launches import Recorder, inside_operators
from tests.evidence.subjects import on_triton


class Launches(NamedTuple):
    """Kernels launched by the forward pass and by the backward pass."""

    forward: int
    backward: int


def _flowing(outputs: object) -> list[Tensor]:
    values = outputs if isinstance(outputs, tuple) else (outputs,)
    return [value for value in values if isinstance(value, Tensor) and value.requires_grad]


def _passes(function: Callable[..., object], args: Mapping[str, Tensor], counted: Callable[[], int]) -> Launches:
    leaves = {name: value.detach().requires_grad_() for name, value in args.items()}
    outputs = _flowing(function(**leaves))
    forward = counted()
    gradients = [torch.ones_like(value) for value in outputs]
    before = counted()
    torch.autograd.grad(outputs, list(leaves.values()), gradients, allow_unused=True)
    return Launches(forward, counted() - before)


def ours(function: Callable[..., object], args: Mapping[str, Tensor]) -> Launches:
    """On the Triton backend: its kernels, and what PyTorch launches around them."""
    with on_triton(), recorded() as launches, Recorder() as recorder, inside_operators(recorder):
        return _passes(function, args, lambda: len(launches) + len(recorder.operators))


def eager(function: Callable[..., object], args: Mapping[str, Tensor]) -> Launches:
    """On the reference backend: the plain formula, every operator of PyTorch a kernel."""
    with hybridkern.use_backend("reference"), Recorder() as recorder:
        return _passes(function, args, lambda: len(recorder.operators))
