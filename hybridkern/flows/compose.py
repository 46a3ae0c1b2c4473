"""A flow on vectors made of layers, one after the other."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hybridkern._arguments import short
from hybridkern._described import Described
from hybridkern._saved.built import Arguments
from hybridkern._tensors import total_dtype
from hybridkern.distributions import DiagonalGaussian, Distribution
from hybridkern.flows._later import watch_finite
from hybridkern.flows.base import Context, Flow, check_count, check_vectors
from hybridkern.flows.memory import check_mode, run_steps
from hybridkern.nets import MADE
from hybridkern.transforms import (
    ActNorm,
    AffineElement,
    Autoregressive,
    Coupling,
    LULinear,
    Permutation,
    PlanarMap,
    SplineElement,
)


def _takes_context(layer: nn.Module) -> bool:
    return "context" in inspect.signature(layer.forward).parameters


def _run(
    layer: nn.Module, x: Tensor, log_det: Tensor | None, seen: Tensor | None, inverse: bool
) -> tuple[Tensor, Tensor | None]:
    if isinstance(layer, Permutation):
        return layer(x, inverse=inverse), log_det
    given = {"context": seen} if seen is not None and _takes_context(layer) else {}
    y: Tensor
    y, log_det = layer(x, log_det, inverse=inverse, **given)
    return y, log_det


def _check_integers(base: Distribution, layers: Sequence[nn.Module]) -> None:
    """Of real numbers a distribution of integers gives no density, and a log-determinant is none of its matter."""
    for layer in layers:
        element = layer.element if isinstance(layer, Coupling | Autoregressive) else None
        if isinstance(layer, ActNorm | LULinear | PlanarMap) or isinstance(element, AffineElement | SplineElement):
            raise ValueError(
                f"base: got {type(base).__name__}, a distribution of integers, expected one of real numbers, which "
                f"{type(layer).__name__} gives"
            )


class _Step(nn.Module):
    """A layer as :func:`hybridkern.flows.memory.run_steps` calls it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, state: tuple[Tensor], log_det: Tensor, *seen: Tensor) -> tuple[tuple[Tensor], Tensor]:
        y, total = _run(self.layer, state[0], log_det, seen[0] if seen else None, inverse=False)
        assert total is not None
        return (y,), total

    def inverse(self, state: tuple[Tensor], log_det: Tensor, *seen: Tensor) -> tuple[tuple[Tensor], Tensor]:
        x, total = _run(self.layer, state[0], log_det, seen[0] if seen else None, inverse=True)
        assert total is not None
        return (x,), total


def _step(layer: nn.Module) -> nn.Module:
    # errors of the memory modes name a step by its class
    step: nn.Module = type(type(layer).__name__, (_Step,), {})(layer)
    return step


class Compose(Flow):
    """Layers one after the other, the first one nearest to the data, over a standard Gaussian.

    A layer is a module ``layer(x, log_det=None, *, inverse=False) -> (y, log_det)`` on vectors, such as
    :class:`~hybridkern.transforms.ActNorm`, :class:`~hybridkern.transforms.LULinear`,
    :class:`~hybridkern.transforms.PlanarMap`, :class:`~hybridkern.transforms.Coupling` and
    :class:`~hybridkern.transforms.Autoregressive`, or a :class:`~hybridkern.transforms.Permutation`. One whose
    ``forward`` has an argument ``context`` is given that of the flow.

    Args:
        dim: dimensions of one example.
        layers: the layers; at least one.
        context: width of a condition that the layers see, or a module that makes it from the condition given.
        base: distribution of the latents, of ``dim`` dimensions; by default a standard Gaussian. One of integers is for
            layers of your own.
        memory: what training keeps: ``"store"``, ``"recompute"`` or ``"invert"``; see :mod:`hybridkern.flows.memory`.

    Raises:
        TypeError, ValueError: an argument of the wrong type or range.

    >>> import torch
    >>> from hybridkern import transforms
    >>> flow = Compose(3, [transforms.ActNorm(3), transforms.LULinear(3)])
    >>> flow.initialize(torch.randn(16, 3))
    >>> flow.log_prob(torch.zeros(5, 3)).shape
    torch.Size([5])
    """

    _settings = ("memory",)

    def built_from(self) -> Arguments:
        """The arguments of the constructor, with the layers that it has now: they may have come from an iterator."""
        if type(self) is not Compose:
            return super().built_from()
        context = self.context_width if self.embedding is None else self.embedding
        own = {"context": context, "base": self.base, "memory": self.memory}
        return Arguments((self.dim, tuple(self.layers)), own)

    def __init__(
        self,
        dim: int,
        layers: Iterable[nn.Module],
        *,
        context: int | nn.Module = 0,
        base: Distribution | None = None,
        memory: str = "store",
    ) -> None:
        dim = check_count("dim", dim, 1)
        if base is not None and not (isinstance(base, Distribution) and base.dim == dim):
            raise ValueError(f"base: got {short(base)}, expected a Distribution of {dim} dimensions")
        super().__init__(dim, DiagonalGaussian(dim) if base is None else base, context)
        given = list(layers) if isinstance(layers, Iterable) else [layers]
        if not given or not all(isinstance(layer, nn.Module) for layer in given):
            raise TypeError(f"layers: got {short(layers)}, expected modules, at least one")
        if self.base.discrete:
            _check_integers(self.base, given)
        self.layers = nn.ModuleList(given)
        self.memory = check_mode(memory)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name, module in self.named_modules():  # all of them before anything is copied
            if isinstance(module, (Described, MADE)):
                module.check_state(state_dict, f"{prefix}{name}.")
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Starts every layer that can be started from data (:class:`~hybridkern.transforms.ActNorm`), in turn.

        Under ``torch.distributed`` every rank must call this, each with its own ``x``: all start from all of it.

        Args:
            x: a sample of the data, ``(N, dim)`` with ``N >= 1``, as :meth:`forward` takes it.
            context: its conditions, in a flow that has them.

        Raises:
            TypeError, ValueError: what :meth:`forward` raises; no rows, or a value that is not finite.
        """
        check_vectors("x", x, self.dim, self.base.dtype)
        seen = self.seen(context, x)
        x = x.to(self.base.dtype)
        for layer in self.layers:
            initialize = getattr(layer, "initialize", None)
            if initialize is not None:
                initialize(x)
            x, _ = _run(layer, x, None, seen, inverse=False)

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """Data -> latent.

        Args:
            x: ``(B, dim)``, dtype of the parameters.
            context: condition, ``(B, width)`` or ``(width,)``; ``None`` in a flow without one.

        Returns:
            Latents ``(B, dim)`` and ``log|det dz/dx|`` ``(B,)`` in nats, at least float32.

        Raises:
            TypeError, ValueError: another type, dtype or shape.
        """
        check_vectors("x", x, self.dim, self.base.dtype)
        seen = self.seen(context, x)
        x = x.to(self.base.dtype)
        if self.memory == "store":
            return self._run(x, seen, inverse=False)
        log_det = x.new_zeros(x.shape[0], dtype=total_dtype(x))
        inputs = [() if seen is None else (seen,)] * len(self.layers)
        (z,), log_det = run_steps([_step(layer) for layer in self.layers], (x,), log_det, inputs, memory=self.memory)
        return z, log_det

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """Latent -> data.

        Args:
            z: ``(B, dim)``, dtype of the parameters.
            context: as :meth:`forward` takes it.

        Returns:
            Data ``(B, dim)`` and ``log|det dx/dz|`` ``(B,)`` in nats, at least float32.

        Raises:
            TypeError, ValueError: another type, dtype or shape.
        """
        check_vectors("z", z, self.dim, self.base.dtype)
        x, log_det = self._run(z.to(self.base.dtype), self.seen(context, z), inverse=True)
        watch_finite(self, x)
        return x, log_det

    def _run(self, x: Tensor, seen: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        log_det: Tensor | None = None
        for layer in reversed(self.layers) if inverse else self.layers:
            x, log_det = _run(layer, x, log_det, seen, inverse)
        if log_det is None:
            log_det = x.new_zeros(x.shape[0], dtype=total_dtype(x))
        return x, log_det
