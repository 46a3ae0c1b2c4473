"""Solves ``x + g(x) = y`` for a network ``g`` that shrinks distances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Map = Callable[[Tensor, Tensor], Tensor]  # of some examples, and which of the batch they are
MOST_ITERATIONS = 1000
ERRORS = {torch.float32: 1e-6, torch.float64: 1e-10}


class ConvergenceError(ArithmeticError):
    """The equation was not solved: the network does not shrink distances, or a number is not finite."""


def _error(residual: Tensor) -> Tensor:
    return residual.abs().flatten(1).amax(1)


@torch.no_grad()
def solve(g: Map, y: Tensor) -> Tensor:
    """``x`` with ``|x + g(x) - y|`` at most 1e-6 (float64: 1e-10) in each element, or as small as the dtype allows.

    Each example is iterated, ``x <- y - g(x)``, until it is solved, and not longer: its result does not depend on its
    neighbours.

    Raises:
        ConvergenceError: an example is not solved after 1000 iterations.

    Source: Behrmann et al. 2019 (arXiv:1811.00995), algorithm 1.
    """
    if y.numel() == 0 or y.is_meta:
        return y + g(y, torch.arange(y.shape[0], device=y.device))
    # rounding y itself costs half of this
    least = 2 * torch.finfo(y.dtype).eps * y.abs().flatten(1).amax(1)
    wanted = least.clamp_min(ERRORS.get(y.dtype, 0.0))
    x = y.clone()
    rows = torch.arange(y.shape[0], device=y.device)
    for _ in range(MOST_ITERATIONS):
        given = x[rows]
        residual = y[rows] - given - g(given, rows)
        open_ = ~(_error(residual) <= wanted[rows])  # NaN stays open
        rows = rows[open_]
        if rows.numel() == 0:
            return x
        x[rows] = (given + residual)[open_]
    given = x[rows]
    worst = _error(y[rows] - given - g(given, rows)).max().item()
    raise ConvergenceError(
        f"inverse: {rows.numel()} of {y.shape[0]} examples are not solved after {MOST_ITERATIONS} iterations, the "
        f"largest |x + g(x) - y| is {worst:.3g}; check_lipschitz() says whether a layer breaks its bound"
    )


class _Solved(torch.autograd.Function):
    """The solution ``x`` of ``bracket = 0``: its gradient ``a`` becomes ``(I + J^T)^-1 a``, by the same iteration."""

    @staticmethod
    def forward(ctx: Any, bracket: Tensor, x: Tensor, pull: Map, *read: Tensor) -> Tensor:
        ctx.pull = pull
        ctx.save_for_backward(*read)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("the inverse of a residual flow has first derivatives only")
        read = ctx.saved_tensors  # raises where one was written to since
        return _scaled_solution(ctx.pull, grads[0]), None, None, *(None for _ in read)


def _scaled_solution(pull: Map, grad: Tensor) -> Tensor:
    """:func:`solve` of a gradient, to the same digits whatever its size: that of a mean over a batch is a small one."""
    if grad.numel() == 0:
        return grad
    size = grad.abs().flatten(1).amax(1)
    size = torch.where(size > 0, size, 1.0).view(-1, *(1,) * (grad.ndim - 1))
    return size * solve(pull, grad / size)


def differentiable(g: Map, y: Tensor, again: Map, read: Sequence[Tensor]) -> Tensor:
    """:func:`solve` with gradients to ``y`` and to what ``g`` is made of, by the implicit function theorem.

    Args:
        g: the map.
        y: what it is solved for.
        again: the same map in the backward pass.
        read: the tensors that it reads, which must be as they were by then.
    """
    x = solve(g, y)
    if not torch.is_grad_enabled():
        return x
    rows = torch.arange(y.shape[0], device=y.device)

    def pull(u: Tensor, rows: Tensor) -> Tensor:
        with torch.enable_grad():
            given = x[rows].requires_grad_()
            return torch.autograd.grad(again(given, rows), given, u)[0]

    # dx = (I + J)^-1 (dy - dg)
    found: Tensor = _Solved.apply(y - x - g(x, rows), x, pull, *read)  # type: ignore[no-untyped-call]
    return found
