"""The backward pass of :mod:`hybridkern.flows.memory` where it is itself to be differentiated (``create_graph=True``).

It runs the steps once more as ordinary autograd operations, from what was kept, and lets autograd differentiate them:
the memory that the modes save is taken for as long as that second graph lives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call

if TYPE_CHECKING:
    from hybridkern.flows.memory import Run, State


def differentiable_gradients(
    run: Run, state: State, inputs: Sequence[State], grads: Sequence[Tensor]
) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
    """Gradients of the first state, of the inputs and of the parameters, with a graph of their own.

    Args:
        run: the forward pass.
        state: the first state, connected to what it was computed from.
        inputs: those of each step.
        grads: of the last state's tensors and of the log-determinant.
    """
    # an alias each: where the first state was computed from parameters, their gradient is that of this pass alone
    first = tuple(_alias(part) for part in state)
    own = [tuple(_alias(tensor) for tensor in tensors) for tensors in inputs]
    params = [_alias(param) for param in run.params]
    log_det = torch.zeros_like(grads[-1])
    current = first
    with run.replay.autocast():
        for k, step in enumerate(run.steps):
            with run.again(k):
                current, log_det = functional_call(
                    step, run.named(k, params), (current, log_det, *own[k]), tie_weights=True
                )
    flat = [tensor for tensors in own for tensor in tensors]
    pairs = [pair for pair in zip((*current, log_det), grads, strict=True) if pair[0].requires_grad]
    found = torch.autograd.grad(
        [out for out, _ in pairs],
        (*first, *flat, *params),
        [grad for _, grad in pairs],
        create_graph=True,
        allow_unused=True,
    )
    a, b = len(first), len(first) + len(flat)
    return list(found[:a]), list(found[a:b]), list(found[b:])


def recovered(run: Run, state: State, inputs: Sequence[State], log_det: Tensor) -> tuple[State, list[State]]:
    """The first state from the last one, as a differentiable function of it; and what each step was given."""
    befores: list[State] = []
    with run.replay.autocast():
        for k in reversed(range(len(run.steps))):
            with run.again(k):
                state, _ = run.steps[k].inverse(state, torch.zeros_like(log_det), *inputs[k])  # type: ignore[operator]
            befores.append(state)
    return state, befores


def _alias(value: Tensor) -> Tensor:
    return value.view_as(value) if value.requires_grad else value.detach().requires_grad_()
