"""The backward pass of :mod:`hybridkern.flows.memory` where it is itself to be differentiated (``create_graph=True``).

It runs the steps once more as ordinary autograd operations, from what was kept, and lets autograd differentiate them:
the memory that the modes save is taken for as long as that second graph lives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hybridkern.ops._autograd import pulled_back

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
    flat = [tensor for tensors in inputs for tensor in tensors]
    # not zeros_like: a gradient may be a batch of gradients, and what is differentiated must not be
    start = torch.zeros(grads[-1].shape, dtype=grads[-1].dtype, device=grads[-1].device)

    def again(*values: Tensor) -> tuple[Tensor, ...]:
        current, rest = values[: len(state)], values[len(state) :]
        own, params = run.split_inputs(rest[: len(flat)]), rest[len(flat) :]
        log_det = start
        with run.replay.autocast():
            for k, step in enumerate(run.steps):
                with run.again(k, params):
                    current, log_det = step(current, log_det, *own[k])
        return *current, log_det

    found = pulled_back(again, (*state, *flat, *run.params), grads)
    a, b = len(state), len(state) + len(flat)
    return list(found[:a]), list(found[a:b]), list(found[b:])


def recovered(run: Run, state: State, inputs: Sequence[State], log_det: Tensor) -> tuple[State, list[State]]:
    """The first state from the last one, as a differentiable function of it; and what each step was given."""
    befores: list[State] = []
    start = torch.zeros(log_det.shape, dtype=log_det.dtype, device=log_det.device)
    with run.replay.autocast():
        for k in reversed(range(len(run.steps))):
            with run.again(k):
                state, _ = run.steps[k].inverse(state, start, *inputs[k])  # type: ignore[operator]
            befores.append(state)
    return state, befores
