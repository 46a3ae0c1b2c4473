"""Steps of 8-bit grids, chosen by the least square error."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)  # of the largest magnitude, tried for each step
_WEIGHT_CLIPS = _CLIPS[:5]
_MOST_INPUT_BITS = 24
_SAMPLE = 1 << 18  # of activations, to choose a step by


def sampled(x: Tensor) -> Tensor:
    """Some of the numbers, evenly spaced."""
    flat = x.flatten()
    return flat[:: max(1, len(flat) // _SAMPLE)]


def best_step(values: Tensor, most: float, last: int) -> float:
    """The step for non-negative ``values`` on the grid ``0 .. last``; ``most`` is the largest of them."""
    if most <= 0:
        return 1.0
    values = sampled(values)
    steps = [most * clip / last for clip in _CLIPS]
    errors = [((values / step).round().clamp(max=last) * step - values).square().mean().item() for step in steps]
    return steps[errors.index(min(errors))]


def input_bits(distances: Tensor) -> int:
    """How many bits integers, given by their distances from the center, lose so that they fit into -128 to 127."""
    values = sampled(distances).double()
    best, least = 0, math.inf
    for bits in range(_MOST_INPUT_BITS):
        step = 2.0**bits
        error = ((values / step + 0.5).floor().clamp(-128, 127) * step - values).square().mean().item()
        if error < least:
            best, least = bits, error
    return best


def weight_steps(weight: Tensor) -> Tensor:
    """Steps ``(out,)`` of weights ``(out, in, k, k)`` on -127 to 127; 1 for a channel of zeros."""
    flat = weight.flatten(1)
    most = flat.abs().amax(1)
    best = torch.where(most > 0, most / 127, 1.0)
    least = torch.full_like(best, math.inf)
    for clip in _WEIGHT_CLIPS:
        step = torch.where(most > 0, clip * most / 127, 1.0)
        error = ((flat / step[:, None]).round().clamp(-127, 127) * step[:, None] - flat).square().sum(1)
        best, least = torch.where(error < least, step, best), least.minimum(error)
    return best
