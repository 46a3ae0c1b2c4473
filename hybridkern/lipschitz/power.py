"""Spectral norms by power iteration, for all layers of a kind at once, and weights that keep to a bound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from weakref import WeakSet

import torch
from torch import Tensor

from hybridkern._autocast import without_autocast
from hybridkern._finite import is_plain, readable
from hybridkern._tensors import total_dtype
from hybridkern.lipschitz.layers import LipschitzLayer, LipschitzLinear
from hybridkern.lipschitz.squaring import LARGEST, leading, restarted, unit

Weights = dict[LipschitzLayer, Tensor]
TOLERANCE = 1e-3  # of the singular vectors, between two iterations, or of the norm, where that is shown
MOST_ITERATIONS = 200
_STAGES, _UNASKED = 4, 2  # of squaring: at most, and where nothing is asked for


def by_kind(layers: Iterable[LipschitzLayer]) -> list[list[LipschitzLayer]]:
    """The layers in groups that one iteration serves."""
    groups: dict[tuple[object, ...], list[LipschitzLayer]] = {}
    for layer in layers:
        groups.setdefault(layer.kind, []).append(layer)
    return list(groups.values())


_settled: WeakSet[LipschitzLayer] = WeakSet()


def has_settled(layers: Sequence[LipschitzLayer]) -> bool:
    """Whether power iteration has run to its end once; where that cannot be looked at, taken for granted.

    It waits for a device once per layer.
    """
    unknown = [layer for layer in layers if layer not in _settled]
    if not unknown or torch.compiler.is_compiling() or not is_plain(unknown[0].settled):
        return True
    if bool(torch.stack([layer.settled for layer in unknown]).all()):
        _settled.update(unknown)
        return True
    return False


@torch.no_grad()
def iterate(layers: Sequence[LipschitzLayer], *, most: int = MOST_ITERATIONS, tolerance: float = TOLERANCE) -> None:
    """Improves the singular vectors of layers of one kind until they change by less than ``tolerance``.

    On a device nothing is asked for: there five iterations run, and ``most`` the first time. Matrices of up to 256 rows
    or columns are squared instead (:mod:`hybridkern.lipschitz.squaring`).

    Source: Gouk et al. 2021 (arXiv:1804.04368), section 4, for convolutions; Chen et al. 2019, appendix D.
    """
    weights = torch.stack([layer.weight.detach() for layer in layers])
    start = torch.stack([layer.left for layer in layers]), torch.stack([layer.right for layer in layers])
    asks = readable(weights)
    most = most if asks or not has_settled(layers) else 5
    with without_autocast(weights.device):  # in bfloat16 nothing would be within a bound of a few thousandths of one
        left, right = _iterated(layers[0], weights, *start, most, tolerance, asks)
    for layer, new_left, new_right in zip(layers, left, right, strict=True):
        layer.follow(new_left, new_right)


def _iterated(
    kind: LipschitzLayer, weights: Tensor, left: Tensor, right: Tensor, most: int, tolerance: float, asks: bool
) -> tuple[Tensor, Tensor]:
    if isinstance(kind, LipschitzLinear) and min(weights.shape[1:]) <= LARGEST:
        stages = _STAGES if asks or most > 5 else _UNASKED
        wide = total_dtype(weights)  # half precision has no factorizations, and too few digits for squares
        found = leading(weights.to(wide), restarted(right).to(wide), stages, tolerance if asks else None)
        right = restarted(found).to(weights.dtype)
        left = unit(kind.images(weights, right))
        return left, restarted(unit(kind.preimages(weights, left)))
    least = tolerance / max(left[0].numel(), right[0].numel()) ** 0.5
    right, again = restarted(right), False
    for _ in range(most):
        new_left = unit(kind.images(weights, right))
        new_right = unit(kind.preimages(weights, new_left))
        if not asks:
            left, right = new_left, restarted(new_right)
            continue
        moved = max(float((new_left - left).abs().amax()), float((new_right - right).abs().amax()))
        left, right = new_left, new_right
        if moved <= least:
            new_right = restarted(right)
            if again or torch.equal(new_right, right):
                break
            right, again = new_right, True  # once: a weight of zeros has no direction
    return left, restarted(right)


@torch.no_grad()
def norms(weights: Weights) -> dict[LipschitzLayer, float]:
    """Spectral norms of weights as they are, by power iteration from a random start."""
    found: dict[LipschitzLayer, float] = {}
    for group in by_kind(weights):
        given = torch.stack([weights[layer] for layer in group])
        left, right = (torch.stack([getattr(layer, side) for layer in group]) for side in ("left", "right"))
        start = torch.randn_like(left), unit(torch.randn_like(right))
        with without_autocast(given.device):
            left, right = _iterated(group[0], given, *start, 5 * MOST_ITERATIONS, TOLERANCE / 10, True)
            sigma = (left * group[0].images(given, right)).flatten(1).sum(1)
        found.update(zip(group, sigma.tolist(), strict=True))
    return found


def bounded_weights(groups: Iterable[Sequence[LipschitzLayer]], bound: float) -> Weights:
    """Each weight divided by ``max(1, sigma / bound)``, with ``sigma`` from the singular vectors it has.

    ``groups`` are those of :func:`by_kind`. Gradients pass through ``sigma``; the vectors are constants of the call.
    """
    found: Weights = {}
    for group in groups:
        weights = torch.stack([layer.weight for layer in group])
        left = torch.stack([layer.left for layer in group])
        right = torch.stack([layer.right for layer in group])
        with without_autocast(weights.device):
            sigma = (left * group[0].images(weights, right)).flatten(1).sum(1)
        factors = (sigma / bound).clamp_min(1.0)
        bounded = weights / factors.view(-1, *(1,) * (weights.ndim - 1))
        found.update(zip(group, bounded.unbind(0), strict=True))
    return found
