"""The log-determinant of ``I + J`` as a power series that is cut at random, without bias.

``log det(I + J) = sum_k (-1)^(k+1) tr(J^k) / k`` where ``J`` shrinks; ``v^T J^k v`` with a Gaussian ``v`` has the mean
``tr(J^k)``. After ``terms`` terms a random number ``N`` more are taken, the ``k``-th of them divided by
``P(N >= k)``: the sum keeps its mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hybridkern._arguments import as_name, as_number, as_size
from hybridkern._tensors import total_dtype

PROPOSALS = ("geometric", "poisson")
MOST_TERMS = 1000  # beyond, the summands are below any rounding


@dataclass(frozen=True)
class Series:
    """How many terms are taken.

    Attributes:
        terms: taken always, at least 0.
        proposal: of the number ``N`` of further terms: ``"geometric"``, ``P(N >= k) = rate^(k-1)``, or ``"poisson"`` of
            mean ``rate``.
        rate: of the proposal. A geometric one of rate 0.5 has finite variance whatever ``J`` only where the network's
            Lipschitz constant is below ``sqrt(0.5)``; trained networks lie far below their bounds.
        vectors: draws of ``v``, each with a number of terms of its own; the estimate is their mean.

    Raises:
        TypeError, ValueError: an unknown name, or a number outside its range.

    Source: Chen et al. 2019 (arXiv:1906.02735), sections 3.1 and 3.2.
    """

    terms: int = 2
    proposal: str = "poisson"
    rate: float = 2.0
    vectors: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", as_size("terms", self.terms, 0))
        object.__setattr__(self, "vectors", as_size("vectors", self.vectors))
        as_name("proposal", self.proposal, PROPOSALS)
        wanted = "a number between 0 and 1" if self.proposal == "geometric" else "a positive number"
        most = 1.0 if self.proposal == "geometric" else math.inf
        object.__setattr__(self, "rate", as_number("rate", self.rate, lambda r: 0 < r < most, wanted))

    def reach(self, k: int) -> float:
        """``P(N >= k)`` for ``k`` of at least 1."""
        if self.proposal == "geometric":
            return self.rate ** (k - 1)
        term, below = math.exp(-self.rate), 0.0
        for i in range(k):
            below += term
            term *= self.rate / (i + 1)
        return 1 - below if below < 0.99 else _poisson_tail(self.rate, k)

    def draw(self, generator: torch.Generator | None) -> int:
        """``N``, by a generator on the CPU."""
        on_cpu = generator if generator is None or generator.device.type == "cpu" else None
        uniform = float(torch.rand((), dtype=torch.float64, generator=on_cpu))
        k = 0
        while k < MOST_TERMS and uniform < self.reach(k + 1):
            k += 1
        return k

    def weights(self, generator: torch.Generator | None) -> list[float]:
        """Factors of the terms 0, 1, ..., of one draw."""
        more = self.draw(generator)
        return [1.0] * (self.terms + 1) + [1 / self.reach(k) for k in range(1, more + 1)]


def _poisson_tail(rate: float, k: int) -> float:
    """``P(N >= k)`` summed from ``k`` on: one minus the rest has no digits left there."""
    term = math.exp(k * math.log(rate) - rate - math.lgamma(k + 1))
    total, i = 0.0, k
    while term > total * 1e-17:
        total += term
        i += 1
        term *= rate / i
    return total


def chain(pull: Callable[[Tensor], Tensor], v: Tensor, weights: list[float]) -> tuple[Tensor, Tensor]:
    """One estimate of the log-determinant ``(B,)``, and the vectors ``w`` of its gradient, like ``v``.

    ``w^T dJ v`` has the mean ``tr((I + J)^-1 dJ)``, which is the derivative of the log-determinant: so one more
    vector-Jacobian product differentiates it, and the products of the chain are not stored.

    Args:
        pull: ``u`` to ``J^T u``, example by example.
        v: ``(B, *S)``.
        weights: of the terms from 0.
    """
    value = v.new_zeros(v.shape[0], dtype=total_dtype(v))
    u = w = v
    for k, weight in enumerate(weights[1:], 1):
        u = pull(u)
        sign = 1 if k % 2 else -1
        value = value + (sign * weight / k) * dot(u, v)
        w = w - (sign * weight) * u
    return value, w


def dot(a: Tensor, b: Tensor) -> Tensor:
    """``(B,)``: the products of the examples, in the dtype of a total."""
    return (a * b).flatten(1).sum(1, dtype=total_dtype(a))


class Estimated(torch.autograd.Function):
    """An estimate whose gradient is that of another number: the one that was made for it."""

    @staticmethod
    def forward(value: Tensor, surrogate: Tensor) -> Tensor:
        """``value``."""
        return value.clone()

    @staticmethod
    def setup_context(ctx: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> tuple[None, Tensor]:
        """The whole gradient goes to the surrogate.

        Raises:
            RuntimeError: the gradient is to be differentiated again, and is none of what it would give.
        """
        if torch.is_grad_enabled():
            raise RuntimeError(
                "an estimated log-determinant has first derivatives only; trace='exact' can be differentiated again"
            )
        return None, grads[0]
