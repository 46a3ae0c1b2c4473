"""What a sequence of invertible steps keeps for its backward pass."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

MODES = ("store", "recompute", "invert")
State = tuple[Tensor, ...]


def check_mode(memory: str) -> str:
    """``memory`` itself.

    Raises:
        ValueError: not one of the modes.
    """
    if memory not in MODES:
        raise ValueError(f"memory: got {memory!r}, expected 'store', 'recompute' or 'invert'")
    return memory


def run_steps(
    steps: Sequence[nn.Module], state: State, log_det: Tensor, inputs: Sequence[State] = (), *, memory: str = "store"
) -> tuple[State, Tensor]:
    """Runs the steps one after the other."""
    for i, step in enumerate(steps):
        state, log_det = step(state, log_det, *(inputs[i] if inputs else ()))
    return state, log_det
