"""The planar map: a bump along one direction, inverted numerically."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridkern._arguments import as_size
from hybridkern._autocast import without_autocast
from hybridkern._saved.built import Built
from hybridkern._tensors import check_width, total_dtype

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


class PlanarMap(Built, nn.Module):
    """``y = x + u' tanh(w' x + b)``, with ``u'`` such that the map can be inverted.

    ``u' = u + (m(w u) - w u) w / |w|**2`` with ``m(a) = softplus(a + k) - (1 - 1e-3)`` has ``w u' = m(w u) > -1``, the
    condition for a bijection. The constant ``k`` makes ``m(0) = 0``, so that ``u = 0`` is the identity; the paper has
    ``k = 0`` and no margin, and moves ``u`` by a distance without bound as ``w`` goes to 0.

    Args:
        dim: dimensions of one example.
        context: width of a condition, to which ``u``, ``w`` and ``b`` are affine; or 0.

    Raises:
        TypeError, ValueError: ``dim`` is not a positive integer, or ``context`` no width.

    Source: Rezende and Mohamed 2015 (arXiv:1505.05770), equation 10 and appendix A.1.
    """

    def __init__(self, dim: int, context: int = 0) -> None:
        super().__init__()
        dim, context = as_size("dim", dim), as_size("context", context, 0)
        self.u = nn.Parameter(0.1 * torch.randn(dim))
        self.w = nn.Parameter(torch.randn(dim) / math.sqrt(dim))
        self.b = nn.Parameter(torch.zeros(()))
        self.condition = nn.Linear(context, 2 * dim + 1, bias=False) if context else None

    def parameters_of(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """``u``, ``w`` and ``b``, with a batch axis where there is a context."""
        if self.condition is None:
            return self.u, self.w, self.b
        check_width("context", context, self.condition.in_features)
        dim = len(self.u)
        assert context is not None
        u, w, b = self.condition(context.to(self.u.dtype)).split((dim, dim, 1), 1)
        return self.u + u, self.w + w, self.b + b[:, 0]

    def along(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``w' x`` of each row of ``x`` ``(B, dim)``: ``(B,)``."""
        w = self.parameters_of(context)[1]
        return _dot(x, w.to(x.dtype))

    @torch.no_grad()
    def bend_at(self, x: Tensor, context: Tensor | None, factor: Tensor) -> None:
        """Multiplies ``w``, whatever the condition, by ``factor``, and lets the map bend at ``x`` ``(1, dim)``."""
        self.w.mul_(factor)
        if self.condition is not None:
            dim = len(self.w)
            self.condition.weight[dim : 2 * dim].mul_(factor)
        self.b.zero_()
        shift = self.parameters_of(context)[2]  # what the condition adds
        self.b.copy_(-(self.along(x, context) + shift)[0])

    def direction(self, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``u'`` ``(dim,)`` and ``w u'`` ``()``, greater than -1; with a batch axis where there is a context."""
        return _direction(*self.parameters_of(context)[:2])

    def forward(
        self, x: Tensor, log_det: Tensor | None = None, *, context: Tensor | None = None, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The map or, by a numerical solution, its inverse.

        Args:
            x: ``(B, dim)``.
            log_det: of the layers before, in nats, ``(B,)``; ``None`` is zero.
            context: ``(B, context)``, or ``None`` without one.
            inverse: latent -> data instead of data -> latent.

        Returns:
            ``y`` ``(B, dim)``, and ``log_det`` plus this layer's, of the direction computed, ``(B,)``.

        Raises:
            TypeError, ValueError: ``x`` or ``context`` is no tensor, or has another shape.
        """
        check_width("x", x, len(self.u))
        with without_autocast(x.device):  # w x loses all that the inverse needs
            return self._run(x, log_det, context, inverse)

    def _run(self, x: Tensor, log_det: Tensor | None, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        u, w, b = self.parameters_of(context)
        u, c = _direction(u, w)
        a = _dot(x, w.to(x.dtype)) + b
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


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Over the last axis; ``b`` may have no other."""
    return a @ b if b.ndim == 1 else (a * b).sum(-1)


def _direction(u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """``u'`` like ``u`` and ``w u'``, which is greater than -1."""
    dot = _dot(u, w)
    bounded = F.softplus(dot + _OFFSET) - (1 - LEAST_SLOPE)
    square = _dot(w, w).clamp(min=torch.finfo(w.dtype).tiny)
    return u + ((bounded - dot) / square)[..., None] * w, bounded
