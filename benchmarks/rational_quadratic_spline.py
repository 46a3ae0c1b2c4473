"""``rational_quadratic_spline`` beside nflows, and beside ``torch.compile`` of its formula.

nflows picks the elements inside the interval by boolean masks, which ``torch.compile`` cannot trace as one graph: what
is compiled is its formula on all elements, with those outside chosen at the end.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks._case import Case, Run, Sides, with_grads
from benchmarks._results import AGAIN, COMPILED, EAGER, OURS
from hybridkern import ops

BINS, BOUND, LEAST = 8, 3.0, 1e-3
_END = math.log(math.expm1(1 - LEAST))


def ours(x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
    """Value and log-determinant."""
    return ops.rational_quadratic_spline(x, params, bins=BINS, bound=BOUND)


def library(x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
    """nflows itself."""
    from nflows.transforms.splines.rational_quadratic import unconstrained_rational_quadratic_spline

    y, log_slope = unconstrained_rational_quadratic_spline(
        x, *params.tensor_split((BINS, 2 * BINS), -1), tail_bound=BOUND
    )
    return y, log_slope.sum(1)


def _edges(raw: Tensor) -> Tensor:
    sizes = LEAST + (1 - LEAST * BINS) * F.softmax(raw, -1)
    inner = BOUND * (2 * sizes.cumsum(-1) - 1)
    return F.pad(F.pad(inner[..., :-1], (1, 0), value=-BOUND), (0, 1), value=BOUND)


def formula(x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
    """The formula of nflows without masks."""
    widths, heights, slopes = params.tensor_split((BINS, 2 * BINS), -1)
    across, up = _edges(widths), _edges(heights)
    d = LEAST + F.softplus(F.pad(slopes, (1, 1), value=_END))
    inside = (x >= -BOUND) & (x <= BOUND)
    place = torch.where(inside, x, 0.0)
    k = (place.unsqueeze(-1) >= across[..., 1:-1]).sum(-1, keepdim=True)
    x0, x1, y0, y1, d0, d1 = (
        values.gather(-1, index).squeeze(-1)
        for values, index in ((across, k), (across, k + 1), (up, k), (up, k + 1), (d, k), (d, k + 1))
    )
    s, t = (y1 - y0) / (x1 - x0), (place - x0) / (x1 - x0)
    rest = t * (1 - t)
    below = s + (d0 + d1 - 2 * s) * rest
    y = y0 + (y1 - y0) * (s * t**2 + d0 * rest) / below
    log_slope = torch.log(s**2 * (d1 * t**2 + 2 * s * rest + d0 * (1 - t) ** 2)) - 2 * torch.log(below)
    return torch.where(inside, y, x), torch.where(inside, log_slope, 0.0).sum(1)


def case(
    batch: int, dim: int, *, eager: float, compiled: float, backward: bool = True, compile_formula: bool = True
) -> Case:
    """``x`` ``(batch, dim)``, parameters ``(batch, dim, 23)``."""

    def build() -> Sides:
        torch.manual_seed(0)
        x, params = torch.randn(batch, dim), torch.randn(batch, dim, 3 * BINS - 1)
        inputs = tuple(value.requires_grad_(backward) for value in (x, params))
        grads = torch.randn(batch, dim), torch.randn(batch)
        functions = {OURS: ours, AGAIN: ours, EAGER: library}
        if compile_formula:
            functions[COMPILED] = torch.compile(formula, fullgraph=True, dynamic=False)

        def runner(function) -> Run:
            if not backward:
                return lambda: function(*inputs)
            return lambda: with_grads(function(*inputs), inputs, grads)

        return Sides({side: runner(function) for side, function in functions.items()})

    what = "forward+backward" if backward else "forward"
    name = f"rational_quadratic_spline K={BINS} ({batch},{dim}), {what}"
    return Case(name, build, {EAGER: eager, COMPILED: compiled})
