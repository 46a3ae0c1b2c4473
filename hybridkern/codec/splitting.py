"""The channels of a residual stream that reach farthest become several, so that one step for all can be finer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hybridkern.codec.integers import ADD_STREAM, SET_STREAM
from hybridkern.codec.stages import Stage

_FINER = (4, 3, 2)  # how many times finer a step may become, tried in this order
_SHARE = 0.5  # of the channels that there are, which may be added


def split(
    stages: Sequence[Stage], x: Tensor, conv: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> tuple[list[Stage], Tensor]:
    """The same network with more channels in its stream, none of which passes on more than a limit.

    What reads a stream sees 8 bits of it. A channel that goes up to ``n`` times the limit ``L`` becomes ``n``
    channels, from which 0, L, 2 L, ... are subtracted: cut off at 0 and L, their sum is the ReLU of the one. The
    linear prediction that a network starts from needs this: a few channels carry most of it.

    Args:
        stages: of the network.
        x: what it sees, ``(N, C, H, W)``.
        conv: ``conv(x, weight, bias)``, with zeros beyond the edges.

    Returns:
        The stages, and by channel of the stream at which value its ReLU is cut off: infinity where it is not, empty
        for a network without a stream.

    Source: channels split into several, Zhao et al. 2019 (arXiv:1901.09504), section 3; here by what they reach.
    """
    reach = _reach(stages, x, conv)
    parts = torch.ones_like(reach, dtype=torch.int64)
    limit = torch.inf
    for finer in _FINER:
        wanted = (reach * finer / reach.max()).ceil().clamp(min=1).long() if len(reach) and reach.max() > 0 else parts
        if len(reach) < wanted.sum() <= (1 + _SHARE) * len(reach):
            parts, limit = wanted, reach.max().item() / finer
            break
    source = torch.arange(len(reach)).repeat_interleave(parts)
    number = torch.cat([torch.arange(int(count)) for count in parts]) if len(parts) else source
    is_last = number == parts[source] - 1
    limits = torch.where(is_last, torch.inf, limit).double()
    if limit == torch.inf:
        return list(stages), limits
    found, reads_stream = [], False
    for stage in stages:
        weight, bias = stage.weight[:, source] if reads_stream else stage.weight, stage.bias
        reads_stream = stage.mode in (SET_STREAM, ADD_STREAM)
        if reads_stream:
            weight, bias = weight[source], bias[source] - (limit * number if stage.mode == SET_STREAM else 0)
        found.append(Stage(weight, bias, stage.mode))
    return found, limits


def _reach(stages: Sequence[Stage], x: Tensor, conv: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """The largest value of each channel of the stream, wherever it is read."""
    found: Tensor | None = None
    stream: Tensor | None = None
    for stage in stages[:-1]:
        y = conv(x, stage.weight, stage.bias)
        if stage.mode in (SET_STREAM, ADD_STREAM):
            y = stream = y if stream is None else stream + y
            most = stream.amax((0, 2, 3)).clamp(min=0)
            found = most if found is None else found.maximum(most)
        x = y.relu()
    return x.new_zeros(0) if found is None else found
