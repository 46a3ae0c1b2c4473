"""The planar map: a bump along one direction, inverted numerically."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridkern._arguments import as_size
from hybridkern._tensors import total_dtype

# The slope along the direction of the bump is at least this: at 0 the map could not be inverted.
LEAST_SLOPE = 1e-3
_OFFSET = math.log(math.expm1(1 - LEAST_SLOPE))
_STEPS = 80


def _solve(target: Tensor, c: Tensor) -> Tensor:
    """``a`` with ``a + c tanh(a) = target``, per element; ``c > -1``, float64.

    Newton's method between bounds: the root lies within ``|c|`` of the target, and wherever a step would leave the
    bounds, or has not halved them after a while, the interval is bisected. Fixed work: no element waits for another's
    answer, and a compiled graph has no loop that depends on data.
    """
    low, high = target - c.abs(), target + c.abs()
    a = target
    for step in range(_STEPS):
        tanh = torch.tanh(a)
        error = a + c * tanh - target
        low, high = torch.where(error < 0, a, low), torch.where(error > 0, a, high)
        newton = a - error / (1 + c * (1 - tanh.square()))
        middle = 0.5 * (low + high)
        # every fourth step bisects: Newton's steps may be tiny on one side of the root for long
        inside = (newton >= low) & (newton <= high) & (step % 4 != 3)
        a = torch.where(error == 0, a, torch.where(inside, newton, middle))
    return a


class PlanarMap(nn.Module):
    """``y = x + u' tanh(w' x + b)``, with ``u'`` such that the map can be inverted.

    ``u' = u + (m(w u) - w u) w / |w|**2`` with ``m(a) = softplus(a + k) - (1 - 1e-3)`` has ``w u' = m(w u) > -1``, the
    condition for a bijection. The constant ``k`` makes ``m(0) = 0``, so that ``u = 0`` is the identity; the paper has
    ``k = 0`` and no margin, and moves ``u`` by a distance without bound as ``w`` goes to 0.

    Args:
        dim: dimensions of one example.

    Raises:
        TypeError, ValueError: ``dim`` is not a positive integer.

    Source: Rezende and Mohamed 2015 (arXiv:1505.05770), equation 10 and appendix A.1.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        dim = as_size("dim", dim)
        self.u = nn.Parameter(0.1 * torch.randn(dim))
        self.w = nn.Parameter(torch.randn(dim) / math.sqrt(dim))
        self.b = nn.Parameter(torch.zeros(()))

    def direction(self) -> tuple[Tensor, Tensor]:
        """``u'`` ``(dim,)`` and ``w u'`` ``()``, which is greater than -1."""
        dot = self.u @ self.w
        bounded = F.softplus(dot + _OFFSET) - (1 - LEAST_SLOPE)
        square = (self.w @ self.w).clamp(min=torch.finfo(self.w.dtype).tiny)
        return self.u + (bounded - dot) * self.w / square, bounded

    def forward(self, x: Tensor, log_det: Tensor | None = None, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """The map or, by a numerical solution, its inverse.

        Args:
            x: ``(B, dim)``.
            log_det: of the layers before, in nats, ``(B,)``; ``None`` is zero.
            inverse: latent -> data instead of data -> latent.

        Returns:
            ``y`` ``(B, dim)``, and ``log_det`` plus this layer's, of the direction computed, ``(B,)``.
        """
        u, c = self.direction()
        a = x @ self.w.to(x.dtype) + self.b
        if inverse:
            a = self._undone(a, c)
        tanh = torch.tanh(a)
        slope = torch.log1p(c * (1 - tanh.square())).to(total_dtype(x))
        bump = tanh[:, None] * u
        if inverse:
            bump, slope = -bump, -slope
        return (x + bump).to(x.dtype), slope if log_det is None else log_det + slope

    def _undone(self, a: Tensor, c: Tensor) -> Tensor:
        """``w x + b`` from ``w y + b``, with the derivatives of the implicit function, up to the seventh.

        The root is found without gradient; each Newton step from there, differentiable, doubles the order to which the
        derivatives are right: 1, 3, 7.
        """
        target, c = a.double(), c.double()
        root = _solve(target.detach(), c.detach())
        for _ in range(3):
            tanh = torch.tanh(root)
            root = root - (root + c * tanh - target) / (1 + c * (1 - tanh.square()))
        return root.to(a.dtype)
