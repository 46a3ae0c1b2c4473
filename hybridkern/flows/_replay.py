"""Runs a piece of a forward pass again as it ran the first time: same random numbers, same autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Replay:
    """Autocast state of the moment, and the random states of pieces recorded one after the other.

    Autocast's cache of lowered weights is off inside: a weight lowered without a graph would be found there by a later
    use that needs one.

    Args:
        device: where the tensors live; the random states are those of this device and the CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.enabled = torch.is_autocast_enabled(device.type)
        self.dtype = torch.get_autocast_dtype(device.type)
        self._states: list[list[Tensor] | None] = []

    @property
    def lowers(self) -> bool:
        """Whether networks run in low precision."""
        return self.enabled and self.dtype in (torch.bfloat16, torch.float16)

    def autocast(self) -> torch.autocast:
        """The autocast state of the first run."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.enabled, cache_enabled=False)

    def _random_states(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        if self.device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self.device))
        return states

    def _restore(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if len(states) > 1:
            torch.cuda.set_rng_state(states[1], self.device)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """The next piece runs inside. Its random state is kept only if it drew random numbers."""
        before = self._random_states()
        yield
        drew = any(not torch.equal(a, b) for a, b in zip(before, self._random_states(), strict=True))
        self._states.append(before if drew else None)

    @contextmanager
    def replaying(self, k: int) -> Iterator[None]:
        """Piece ``k`` runs again inside; the random state outside is left as it is."""
        states = self._states[k]
        if states is None:
            yield
            return
        outside = self._random_states()
        self._restore(states)
        try:
            yield
        finally:
            self._restore(outside)
