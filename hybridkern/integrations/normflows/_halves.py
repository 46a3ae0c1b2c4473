"""Tensors whose channels lie in two halves from layer to layer, so that none is joined only to be split again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from hybridkern.integrations._layer import Accelerated, has_hooks

Pair = tuple[Tensor, Tensor]
LogDet = Tensor | float | None


def halves_of(z: Tensor) -> Pair | None:
    """Both halves of the channels, the first one larger if their number is odd; ``None`` if there are none."""
    if not isinstance(z, Tensor) or z.ndim < 2 or z.shape[1] < 2:  # a split of the user's gives a list
        return None
    first, second = z.chunk(2, 1)
    return first, second


class OnHalves(Accelerated):
    """A layer that works on the halves of the channels, and so on tensors."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent -> data, as in the library."""
        done = self._on_tensor(z, to_data=True)
        return super().forward(z) if done is None else done  # type: ignore[misc]

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Data -> latent, as in the library."""
        done = self._on_tensor(z, to_data=False)
        return super().inverse(z) if done is None else done  # type: ignore[misc]

    def on_halves(self, halves: Pair, to_data: bool) -> tuple[Pair, Tensor] | None:
        """The halves of the channels transformed, and the log-determinant; ``None`` where it cannot."""
        raise NotImplementedError

    def _on_tensor(self, z: Tensor, to_data: bool) -> tuple[Tensor, Tensor] | None:
        halves = halves_of(z)
        done = None if halves is None else self.on_halves(halves, to_data)
        return None if done is None else (torch.cat(done[0], 1), done[1])


def run(flows: Iterable[Any], z: Tensor, log_det: LogDet, to_data: bool, sign: int = 1) -> tuple[Tensor, Any]:
    """The layers one after the other, in the order given; those that can work on halves get and give halves.

    The log-determinants are added as the library adds them, in place: what a layer gives may be a tensor ``(B,)``, one
    number in a tensor, or 0, and the sum keeps the dtype that it starts with.

    Args:
        flows: layers of normflows, accelerated or not.
        z: their input, ``(B, C, *S)``.
        log_det: what the log-determinants are added to; ``None``: they are not.
        to_data: ``forward`` of each layer, or ``inverse``.
        sign: 1, or -1 to subtract them.

    Returns:
        The output of the last layer, and the sum of the log-determinants.
    """
    halves: Pair | None = None
    for flow in flows:
        done = None
        if isinstance(flow, Accelerated) and hasattr(flow, "on_halves") and not has_hooks((flow,)):  # type: ignore[arg-type]
            given = halves_of(z) if halves is None else halves
            done = None if given is None else flow.on_halves(given, to_data)
        if done is not None:
            halves, own = done
        else:
            z = z if halves is None else torch.cat(halves, 1)
            halves = None
            z, own = flow(z) if to_data else flow.inverse(z)
        if log_det is not None:
            log_det = _added(log_det, own, sign, z)
    return (z if halves is None else torch.cat(halves, 1)), log_det


def _added(log_det: Tensor | float, own: Tensor | float | None, sign: int, z: Tensor) -> Tensor | float:
    if own is None:  # of a permutation: nothing, but the library's sum has a dtype and a batch from here on
        if isinstance(log_det, Tensor):
            return log_det
        own = torch.zeros(len(z), device=z.device)
    if sign > 0:
        log_det += own
    else:
        log_det -= own
    return log_det
