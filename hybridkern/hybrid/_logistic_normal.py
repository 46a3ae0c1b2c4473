"""Expectations of the logistic function of a Gaussian number, to about ten digits for every mean and deviation.

Neither has a closed form, and Gauss-Hermite quadrature with any fixed number of nodes fails for a wide Gaussian, where
the logistic function is a step. Up to a deviation of 2 the trapezoidal rule over the Gaussian converges geometrically.
Beyond, the step (or the hinge) is integrated in closed form, and what remains is smooth on each half-line, of the width
of the logistic function, and goes through Gauss-Legendre quadrature there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hybridkern._finite import is_plain
from hybridkern.ops._bounds import at_least, at_most

_LOG_TWO_PI = math.log(2 * math.pi)
_WIDE = 2.0
_STEP = 0.2  # of the trapezoidal rule, in standard deviations
_REACH = 11.0  # the Gaussian tilted by exp(2 e) has its mass within 2 +- 9
_HALF_LINE = 60.0  # remainders fall off like exp(-s/2) at the slowest
_NODES = 128


def _trapezoid(device: torch.device) -> tuple[Tensor, Tensor]:
    nodes = torch.arange(-_REACH, _REACH + _STEP / 2, _STEP, dtype=torch.float64, device=device)
    return nodes, -0.5 * nodes.square() - 0.5 * _LOG_TWO_PI + math.log(_STEP)


def _gauss_legendre(count: int) -> tuple[list[float], list[float]]:
    """Nodes and weights on [-1, 1]. Importing ``numpy.polynomial`` for them takes longer than much of the package.

    Source: Press et al. 2007, "Numerical Recipes", section 4.6: Newton's method from a good guess.
    """
    x = np.cos(np.pi * (np.arange(count) + 0.75) / (count + 0.5))
    for _ in range(5):
        before, value = np.ones(count), x
        for k in range(2, count + 1):
            before, value = value, ((2 * k - 1) * x * value - (k - 1) * before) / k
        slope = count * (before - x * value) / (1 - x * x)
        x = x - value / slope
    return x[::-1].tolist(), (2 / ((1 - x * x) * slope * slope))[::-1].tolist()


_LEGENDRE = _gauss_legendre(_NODES)


def _legendre(device: torch.device) -> tuple[Tensor, Tensor]:
    nodes, weights = (torch.tensor(part, dtype=torch.float64, device=device) for part in _LEGENDRE)
    half = _HALF_LINE / 2
    return half * (nodes + 1), half * weights


_Rule = Callable[[torch.device], tuple[Tensor, Tensor]]
_made: dict[tuple[_Rule, torch.device], tuple[Tensor, Tensor]] = {}


def _nodes(rule: _Rule, device: torch.device) -> tuple[Tensor, Tensor]:
    """Nodes and weights of a rule, once per device: a copy from the host in each step would wait for it."""
    if torch.compiler.is_compiling():
        return rule(device)
    found = _made.get((rule, device))
    if found is None:
        with torch.inference_mode(False):  # what is kept serves training, too
            found = rule(device)
        if all(map(is_plain, found)):
            _made[rule, device] = found
    return found


def _density(s: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return torch.exp(_log_density(s, mean, std))


def _log_density(s: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return -0.5 * ((s - mean) / std).square() - std.log() - 0.5 * _LOG_TWO_PI


def log_expected_sigmoid(mean: Tensor, std: Tensor) -> Tensor:
    """``log E[sigma(s)]`` for ``s ~ N(mean, std**2)``, with its relative precision far in the tails too.

    Args:
        mean, std: ``(B,)`` float64, ``std >= 0``.

    Returns:
        ``(B,)`` float64.
    """
    narrow, broad = at_most(std, _WIDE), at_least(std, _WIDE)
    return torch.where(std < _WIDE, _narrow_log_sigmoid(mean, narrow), _broad_log_sigmoid(mean, broad))


def _narrow_log_sigmoid(mean: Tensor, std: Tensor) -> Tensor:
    nodes, log_weights = _nodes(_trapezoid, mean.device)
    return torch.logsumexp(log_weights + F.logsigmoid(mean[:, None] + std[:, None] * nodes), 1)


def _log_ndtr(x: Tensor) -> Tensor:
    """Log of the normal distribution's cumulative function; ``torch.special.log_ndtr`` has no rule for ``vmap``."""
    below, above = at_most(x, 0.0), at_least(x, 0.0)
    tail: Tensor = torch.special.erfcx(-below / math.sqrt(2))
    return torch.where(
        x < 0, torch.log(tail / 2) - below.square() / 2, torch.log1p(-torch.special.erfc(above / math.sqrt(2)) / 2)
    )


def _broad_log_sigmoid(mean: Tensor, std: Tensor) -> Tensor:
    # sigma(s) = exp(s) sigma(-s), and exp(s) tilts the Gaussian: its mean moves by the variance. Of the two ways to
    # write the expectation, the one with the larger mean has no tail to resolve.
    variance = std.square()
    mirrored = -(mean + variance)
    turned = mirrored > mean
    factor = torch.where(turned, mean + 0.5 * variance, torch.zeros_like(mean))
    mean = torch.where(turned, mirrored, mean)  # not maximum, which shares the gradient out where both are equal
    log_step = _log_ndtr(mean / std)
    nodes, weights = _nodes(_legendre, mean.device)
    column, width = mean[:, None], std[:, None]
    log_scale = log_step[:, None]
    below = torch.exp(_log_density(-nodes, column, width) - log_scale)
    above = torch.exp(_log_density(nodes, column, width) - log_scale)
    rest = ((below - above) * torch.sigmoid(-nodes) * weights).sum(1)
    return factor + log_step + torch.log1p(rest)


def expected_log_sigmoid(mean: Tensor, std: Tensor) -> Tensor:
    """``E[log sigma(s)]`` for ``s ~ N(mean, std**2)``; arguments and result as :func:`log_expected_sigmoid`."""
    narrow, broad = at_most(std, _WIDE), at_least(std, _WIDE)
    nodes, log_weights = _nodes(_trapezoid, mean.device)
    by_trapezoid = (log_weights.exp() * F.logsigmoid(mean[:, None] + narrow[:, None] * nodes)).sum(1)

    half, weights = _nodes(_legendre, mean.device)
    column, width = mean[:, None], broad[:, None]
    # -log sigma(s) is the hinge max(-s, 0) plus log1p(exp(-|s|))
    hinge = broad * _density(torch.zeros_like(mean), mean, broad) * broad - mean * torch.special.ndtr(-mean / broad)
    around = _density(half, column, width) + _density(-half, column, width)
    rest = (around * torch.log1p(torch.exp(-half)) * weights).sum(1)
    return torch.where(std < _WIDE, by_trapezoid, -hinge - rest)
