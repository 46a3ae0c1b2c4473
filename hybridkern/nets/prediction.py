"""Networks on images that begin at the best linear prediction of what they are to compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridkern._finite import is_plain
from hybridkern._precision import wide
from hybridkern._ranks import over_ranks
from hybridkern.nets import ResNet, Scaled
from hybridkern.nets.linear import LinearMap
from hybridkern.nets.neighborhoods import moments, summed

_RIDGE = 1e-6  # of the mean square of the inputs
_MOST_PIXELS = 1 << 18  # that a prediction is fitted to
_LEAST_PIXELS = 10  # per weight: with fewer it would fit their noise


@torch.no_grad()
def start_at_prediction(
    net: nn.Module, x: Tensor, y: Tensor, out_channels: int, places: Sequence[Tensor], factor: float = 1.0
) -> None:
    """Starts ``net`` so that some of its outputs are ``factor`` times the best linear prediction of ``y`` from ``x``.

    By least squares, from 3x3 neighborhoods, or single pixels where there is too little data for those, of as high a
    rank as the network has room for. Nothing happens to a network that has no room, that does not give zeros, or where
    ``x`` has no values. Under ``torch.distributed`` all ranks start from the data of all. No random numbers are drawn.

    Args:
        net: has ``linear_rank``, and takes a linear map by ``start_at``; in a :class:`~hybridkern.nets.Scaled`,
            perhaps: ``y`` is predicted by its distance from ``center`` then.
        x: what it will see, ``(N, C, H, W)``.
        y: ``(N, K, H, W)``.
        out_channels: channels of the network's output.
        places: each ``K`` of those, where the prediction goes; the others stay zero.
        factor: on the prediction.
    """
    center, scale, net = (net.center, net.scale, net.net) if isinstance(net, Scaled) else (0.0, 1.0, net)
    rank = min(getattr(net, "linear_rank", 0), y.shape[1])
    if not (rank and factor and is_plain(x) and y.shape[1]):
        return
    found = _fitted((wide(x) - center) / scale, (wide(y) - center) / scale, rank)
    if found is None:
        return
    up, rest = (value.new_zeros(out_channels, *value.shape[1:]) for value in (found.up, found.rest))
    for rows in places:
        up[rows], rest[rows] = factor * found.up, factor * found.rest
    cast("ResNet", net).start_at(found._replace(up=up, rest=rest))


def start_at_shift(
    net: nn.Module, kept: Tensor, moved: Tensor, channels: Tensor, predicted: Tensor, beta: Tensor | None
) -> None:
    """:func:`start_at_prediction` for a coupling: of those of the ``moved`` channels that may be predicted.

    Args:
        net: ``beta`` times what it makes of ``kept`` is added to ``moved``.
        kept, moved: ``(N, C, H, W)`` and ``(N, K, H, W)``.
        channels: the numbers of the ``moved`` channels, ``(K,)``.
        predicted: numbers of channels.
        beta: a factor, ``None`` for 1.
    """
    if not is_plain(moved):
        return
    places = torch.isin(channels, predicted).nonzero()[:, 0]
    factor = 1.0 if beta is None else beta.item()
    start_at_prediction(net, kept, moved[:, places], moved.shape[1], [places], -1 / factor if factor else 0.0)


def _fitted(x: Tensor, y: Tensor, rank: int) -> LinearMap | None:
    """The linear map of this rank with the least square error from ``x`` ``(N, C, H, W)`` to ``y`` ``(N, K, H, W)``.

    Source: reduced-rank regression, Izenman 1975 (doi:10.1016/0047-259X(75)90042-1), with equal weights.
    """
    n, channels, h, w = x.shape
    every = max(1, n * h * w // _MOST_PIXELS)
    x, y = x[::every], y[::every]
    count = over_ranks(x.new_full((), float(len(x) * h * w))).item()
    side = next((side for side in (3, 1) if count >= _LEAST_PIXELS * channels * side**2), 0)
    if not side:
        return None
    mean_x, mean_y, square, product = moments(over_ranks(summed(x, y, side)))
    ridge = _RIDGE * square.diagonal().mean() + torch.finfo(square.dtype).tiny ** 0.5
    weight = torch.linalg.solve(
        square + ridge * torch.eye(len(square), dtype=square.dtype, device=square.device), product
    ).mT
    _, directions = torch.linalg.eigh(weight @ square @ weight.mT)
    up = directions[:, -rank:]
    down = up.mT @ weight
    if not (down.isfinite().all() and mean_y.isfinite().all()):
        return None
    bias, kernel = -(down @ mean_x), down.unflatten(1, (channels, side, side))
    return LinearMap(F.pad(kernel, (1, 1, 1, 1)) if side == 1 else kernel, bias, up, mean_y)
