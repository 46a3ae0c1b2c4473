"""Hidden channels of a network scaled to reach equally far, before one step per layer is chosen for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hybridkern.codec.integers import ADD_STREAM, SET_STREAM
from hybridkern.codec.stages import Stage

_EXPONENT = 0.5  # of how much less far a channel reaches; 1 would leave the next weights all the difference
_LEAST = 1e-3  # of the farthest reach: channels beyond it are scaled as one there


def equalized(
    stages: Sequence[Stage], x: Tensor, conv: Callable[[Tensor, Tensor, Tensor], Tensor], limits: Tensor
) -> list[Stage]:
    """The same network, whose hidden channels are multiplied by positive numbers, and what reads them divided by these.

    A ReLU passes positive factors on, and a residual stream has one for each channel in all of its layers.

    Args:
        stages: of the network.
        x: what it sees, ``(N, C, H, W)``.
        conv: ``conv(x, weight, bias)``, with zeros beyond the edges.
        limits: at which the channels of the stream are cut off; those that reach theirs are not multiplied.

    Source: Nagel et al. 2019 (arXiv:1906.04721), section 4.1, by the reach of activations.
    """
    reaches: list[Tensor] = []
    stream: Tensor | None = None
    for stage in stages[:-1]:
        y = conv(x, stage.weight, stage.bias)
        if stage.mode in (SET_STREAM, ADD_STREAM):
            stream = y if stream is None else stream + y
            y = stream.minimum(limits[:, None, None])
        x = y.relu()
        reaches.append(x.amax((0, 2, 3)))
    joint = [reach for reach, stage in zip(reaches, stages, strict=False) if stage.mode in (SET_STREAM, ADD_STREAM)]
    common = _factors(torch.stack(joint).amax(0)) if joint else None
    found, inward = [], torch.ones_like(stages[0].weight[0, :, 0, 0])
    for i, stage in enumerate(stages):
        outward = torch.ones_like(stage.bias)
        if i < len(reaches):
            in_stream = stage.mode in (SET_STREAM, ADD_STREAM)
            outward = common if in_stream and common is not None else _factors(reaches[i])
        weight = stage.weight * outward[:, None, None, None] / inward[:, None, None]
        found.append(Stage(weight, stage.bias * outward, stage.mode))
        inward = outward
    return found


def _factors(reach: Tensor) -> Tensor:
    most = reach.max()
    return (most / reach.clamp(min=_LEAST * most)) ** _EXPONENT if most > 0 else torch.ones_like(reach)
