"""Mean, standard deviation and covariance of channels, over all ranks of a distributed run."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hybridkern._finite import check_finite_values, is_plain
from hybridkern._precision import wide
from hybridkern._ranks import over_ranks as _over_ranks

# A channel that varies less tells nothing about its scale: dividing by it would blow up the first one that does vary.
LEAST_STD = 1e-4


@torch.no_grad()
def channel_statistics(*parts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``(C,)`` of the channels of ``parts`` ``(B, C_i, *S)``, joined.

    They are of the dtype of the parts, computed in float64, over all ranks where ``torch.distributed`` runs. The
    standard deviation is 1 where it is below 1e-4, and where there is no data. A channel with a value that is not
    finite has mean 0 and standard deviation 1.
    """
    sums = []
    for part in parts:
        x = wide(part).movedim(1, 0).flatten(1)
        count = x.new_full((x.shape[0],), x.shape[1])
        sums.append(torch.stack([count, x.sum(1), x.square().sum(1)]))
    count, first, second = _over_ranks(torch.cat(sums, 1)).unbind(0)
    mean = first / count.clamp(min=1)
    std = (second / count.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
    finite = std.isfinite()
    mean = torch.where(finite, mean, torch.zeros_like(mean))
    std = torch.where(finite & (std >= LEAST_STD), std, torch.ones_like(std))
    return mean.to(parts[0].dtype), std.to(parts[0].dtype)


# A direction whose variance is less, beside single channels' 1, keeps its scale. Stretching it would blow up the first
# image that does vary along it; and it would stay as it is, to be stretched again by the next step.
LEAST_EIGENVALUE = 1e-6


class Whitening(NamedTuple):
    """Matrices ``(C, C)``, float64, that take normalized channels to uncorrelated ones of variance 1.

    Attributes:
        symmetric: the inverse square root of the correlation, the closest one to the identity.
        slow_first: rows sorted by how much the result is like itself one pixel to the right and below, most first.
    """

    symmetric: Tensor
    slow_first: Tensor


@torch.no_grad()
def whitening(mean: Tensor, std: Tensor, *parts: Tensor) -> Whitening:
    """Of the channels of ``parts`` ``(B, C_i, H, W)``, joined, less ``mean`` and by ``std`` ``(C,)``.

    Over all ranks where ``torch.distributed`` runs. Values that are not finite leave the channels as they are. Source
    of ``slow_first``: minimum/maximum autocorrelation factors, Switzer and Green 1984.
    """
    x = torch.cat([wide(part) for part in parts], 1)
    shape = (-1, *(1,) * (x.ndim - 2))
    x = (x - wide(mean).view(shape)) / wide(std).view(shape)
    pairs = [(x, x), (x[..., 1:], x[..., :-1]), (x[..., 1:, :], x[..., :-1, :])]
    sums = torch.stack([torch.einsum("bchw,bdhw->cd", a, b) for a, b in pairs])
    counts = torch.tensor([float(a[:, 0].numel()) for a, _ in pairs], dtype=x.dtype, device=x.device)
    sums, counts = _over_ranks(sums), _over_ranks(counts)
    sums = sums / counts.clamp(min=1)[:, None, None]
    as_they_are = torch.stack([torch.eye(x.shape[1], dtype=x.dtype, device=x.device), *torch.zeros_like(sums[1:])])
    correlation, right, below = torch.where(sums.isfinite().all(), sums, as_they_are)
    values, vectors = torch.linalg.eigh(correlation)
    stretch = torch.where(
        values < LEAST_EIGENVALUE, torch.ones_like(values), values.clamp(min=LEAST_EIGENVALUE).rsqrt()
    )
    symmetric = vectors @ (stretch[:, None] * vectors.mT)
    neighbors = symmetric @ (right + below) @ symmetric
    slow = torch.linalg.eigh((neighbors + neighbors.mT) / 2)[1].flip(1)
    return Whitening(symmetric, slow.mT @ symmetric)


def finite_over_ranks(name: str, x: Tensor) -> Tensor | None:
    """Whether ``x`` and, where ``torch.distributed`` runs, those of all ranks hold finite values only.

    Returns:
        ``None`` on a CPU, where the values have been looked at, and on tensors without values; on a device the answer
        ``()`` bool, which has not been waited for.

    Raises:
        ValueError: on a CPU, on every rank, a value that is not finite.
    """
    if not is_plain(x):
        return None
    finite = x.isfinite().all()
    everywhere = _over_ranks((~finite).to(torch.float32)) == 0
    if not x.is_cpu:
        return everywhere
    check_finite_values(name, x, "; nothing was changed")
    if not everywhere:
        raise ValueError(f"{name}: got a value that is not finite on another rank; nothing was changed")
    return None
