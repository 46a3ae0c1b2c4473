"""Tensors whose channels lie in two halves from layer to layer, so that none is joined only to be split again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from hybridkern.integrations._layer import has_hooks

Pair = tuple[Tensor, Tensor]


def halves_of(z: Tensor) -> Pair | None:
    """Both halves of the channels, the first one larger if their number is odd; ``None`` if there are none."""
    if z.ndim < 2 or z.shape[1] < 2:
        return None
    first, second = z.chunk(2, 1)
    return first, second


def on_tensor(layer: Any, z: Tensor, to_data: bool) -> tuple[Tensor, Tensor] | None:
    """What a layer that works on halves makes of a tensor; ``None`` where it cannot."""
    halves = halves_of(z)
    done = None if halves is None else layer.on_halves(halves, None, to_data)
    return None if done is None else (torch.cat(done[0], 1), done[1])


def run(flows: Iterable[Any], z: Tensor, log_det: Tensor | None, to_data: bool) -> tuple[Tensor, Tensor | None]:
    """The layers one after the other, in the order given; those that can work on halves get and give halves.

    Args:
        flows: layers of normflows, accelerated or not.
        z: their input, ``(B, C, *S)``.
        log_det: running total ``(B,)``; ``None`` is zero.
        to_data: ``forward`` of each layer, or ``inverse``.

    Returns:
        The output of the last layer, and the total.
    """
    halves: Pair | None = None
    for flow in flows:
        done = None
        if hasattr(flow, "on_halves") and not has_hooks((flow,)):
            given = halves_of(z) if halves is None else halves
            done = None if given is None else flow.on_halves(given, log_det, to_data)
        if done is not None:
            halves, log_det = done
            continue
        z = z if halves is None else torch.cat(halves, 1)
        halves = None
        z, own = flow(z) if to_data else flow.inverse(z)
        log_det = added(log_det, own)
    return (z if halves is None else torch.cat(halves, 1)), log_det


def added(total: Tensor | None, own: Tensor | float) -> Tensor | None:
    """``total + own`` where each may be nothing; layers that only move numbers give 0."""
    if not isinstance(own, Tensor):
        return total if own == 0 else (0 if total is None else total) + torch.as_tensor(own)
    return own if total is None else total + own
