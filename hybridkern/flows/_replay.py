"""Runs a piece of a forward pass again as it ran the first time: same random numbers, same autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor


class _Draws:
    """What is known of random numbers in the pieces of this process."""

    def __init__(self) -> None:
        self.seen = 0  # pieces that drew some
        self.none = False  # none will be drawn, so that no state need be read


draws = _Draws()


@contextmanager
def draws_nothing() -> Iterator[None]:
    """The pieces inside draw no random numbers: for the capture of a graph, during which no state can be read."""
    before, draws.none = draws.none, True
    try:
        yield
    finally:
        draws.none = before


class Replay:
    """Autocast state of the moment, and the random states of pieces recorded one after the other.

    Autocast's cache of lowered weights is off inside: a weight lowered without a graph would be found there by a later
    use that needs one.

    Args:
        device: where the tensors live; the random states are those of this device and the CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.known = torch.amp.is_autocast_available(device.type)
        self.enabled = self.known and torch.is_autocast_enabled(device.type)
        self.dtype = torch.get_autocast_dtype(device.type) if self.known else torch.float32
        self._states: list[list[Tensor] | None] = []

    @property
    def lowers(self) -> bool:
        """Whether networks run in low precision."""
        return self.enabled and self.dtype in (torch.bfloat16, torch.float16)

    def autocast(self) -> torch.autocast | nullcontext[None]:
        """The autocast state of the first run."""
        if not self.known:
            return nullcontext()
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
        if draws.none:
            yield
            self._states.append(None)
            return
        before = self._random_states()
        yield
        drew = any(not torch.equal(a, b) for a, b in zip(before, self._random_states(), strict=True))
        draws.seen += drew
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
