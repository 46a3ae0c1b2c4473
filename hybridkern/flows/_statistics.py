"""Mean and standard deviation of channels, over all ranks of a distributed run."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from hybridkern.reference._dtype import wide

# A channel that varies less tells nothing about its scale: dividing by it would blow up the first one that does vary.
LEAST_STD = 1e-4


@torch.no_grad()
def channel_statistics(*parts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``(C,)`` of the channels of ``parts`` ``(B, C_i, *S)``, joined.

    They are of the dtype of the parts, computed in float64, over all ranks where ``torch.distributed`` runs. The
    standard deviation is 1 where it is below 1e-4, and where there is no data.
    """
    sums = []
    for part in parts:
        x = wide(part).movedim(1, 0).flatten(1)
        count = x.new_full((x.shape[0],), x.shape[1])
        sums.append(torch.stack([count, x.sum(1), x.square().sum(1)]))
    total = torch.cat(sums, 1)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(total)
    count, first, second = total.unbind(0)
    mean = first / count.clamp(min=1)
    std = (second / count.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
    std = torch.where(std < LEAST_STD, torch.ones_like(std), std)
    return mean.to(parts[0].dtype), std.to(parts[0].dtype)
