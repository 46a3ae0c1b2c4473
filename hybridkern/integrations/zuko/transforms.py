"""The transforms that accelerated layers of zuko return: its own classes with other arithmetic."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform, constraints
from torch.distributions.transforms import _InverseTransform
from zuko import transforms
from zuko.utils import unpack

from hybridkern.integrations._features import joined, parts, whole
from hybridkern.integrations._layer import WIDE, unsaved
from hybridkern.integrations.zuko._masked import is_pure
from hybridkern.integrations.zuko.univariate import Affine, Univariate, is_narrow

LOW = (torch.bfloat16, torch.float16)
Values = tuple[Tensor, Tensor]


class Inverse(_InverseTransform):
    """That of a transform of this module, whose log-determinant comes with the values."""

    def call_and_ladj(self, y: Tensor) -> Values:
        """``x`` and ``log|det dx/dy|``."""
        transform: Any = self._inv
        done: Values = transform.inverse_and_ladj(y)
        return done


class _Both:
    """Mixed in before a transform of zuko. Its class has ``_run``, which gives no log-determinant where none is asked.

    The library has none either where it computes values alone, and may raise where it has to.
    """

    _inv: Transform | None

    @property
    def inv(self) -> Transform:
        """As of every transform: the same object each time."""
        if self._inv is None:
            self._inv = Inverse(self)  # type: ignore[arg-type]
        return self._inv

    def _run(self, x: Tensor, inverse: bool, ladj: bool) -> tuple[Tensor, Any]:
        raise NotImplementedError

    def _call(self, x: Tensor) -> Tensor:
        return self._run(x, False, False)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self._run(y, True, False)[0]

    def call_and_ladj(self, x: Tensor) -> Values:
        """``y`` and ``log|det dy/dx|``."""
        return self._run(x, False, True)

    def inverse_and_ladj(self, y: Tensor) -> Values:
        """``x`` and ``log|det dx/dy|``."""
        return self._run(y, True, True)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Of ``x``, as in the library."""
        return self._run(x, False, True)[1]


def mapped(layer: Any, x: Tensor, raw: Tensor, inverse: bool, ladj: bool) -> tuple[Tensor, Any]:
    """What the network of ``layer`` returned, applied to ``x`` ``(..., D)``: by the operator, or by the library."""
    univariate: Univariate = layer.known()
    if univariate.shared and raw.shape[:-1] != x.shape[:-1] and raw.ndim >= x.ndim:
        x = x.expand(*raw.shape[:-1], x.shape[-1])  # a grid of values and conditions
    compiling = torch.compiler.is_compiling()
    if not fits(x, raw, univariate.count) or (isinstance(univariate, Affine) and not compiling and is_narrow(x)):
        return by_library(library_map(layer, raw), x, inverse, ladj)
    if x.ndim == 2:
        return _given_out(univariate, x, raw, inverse)
    y, log_det = _given_out(univariate, x.reshape(-1, x.shape[-1]), raw.reshape(-1, raw.shape[-1]), inverse)
    return y.reshape(x.shape), log_det.reshape(x.shape[:-1])


def by_library(transform: Any, x: Tensor, inverse: bool, ladj: bool) -> tuple[Tensor, Any]:
    """What a transform of the library gives."""
    run = transform.inv if inverse else transform
    return run.call_and_ladj(x) if ladj else (run(x), None)


def _given_out(univariate: Univariate, x: Tensor, raw: Tensor, inverse: bool) -> Values:
    y, log_det = univariate(x, raw, inverse=inverse)
    return unsaved(y, univariate.form, inverse) if isinstance(univariate, Affine) else y, log_det


def broadcasts(context: Tensor | None, batch: torch.Size) -> bool:
    """Whether the batch of a context broadcasts to ``batch``, and not the other way."""
    if context is None:
        return True
    other = context.shape[:-1]
    return len(other) <= len(batch) and all(a in (1, b) for a, b in zip(reversed(other), reversed(batch), strict=False))


def fits(x: Tensor, raw: object, count: int) -> bool:
    """Whether ``raw`` are the parameters of ``x`` as the operators take them."""
    return (
        isinstance(raw, Tensor)
        and x.dtype in WIDE
        and (raw.dtype is x.dtype or (x.dtype is torch.float32 and raw.dtype in LOW))
        and raw.shape == (*x.shape[:-1], x.shape[-1] * count)
        and raw.device == x.device
        and x.numel() > 0
    )


def library_map(layer: Any, raw: Tensor) -> Any:
    """What the library makes of the output of the network."""
    apart = unpack(raw.unflatten(-1, (-1, layer.total)), layer.shapes)
    return transforms.DependentTransform(layer.univariate(*apart), 1)


class AutoregressiveTransform(_Both, transforms.AutoregressiveTransform):
    """All features at once; the inverse in passes that compute what is new."""

    def __init__(self, layer: Any, context: Tensor | None) -> None:
        super().__init__(partial(layer.meta, context), layer.passes)
        self.layer, self.context = layer, context

    def _run(self, x: Tensor, inverse: bool, ladj: bool) -> tuple[Tensor, Any]:
        if not inverse:
            return mapped(self.layer, x, self.layer.raw(x, self.context), False, ladj)
        done: tuple[Tensor, Any] | None = self.layer.in_passes(x, self.context, ladj)
        if done is not None:
            return done
        y, x = x, torch.zeros_like(x)
        for _ in range(self.passes):
            x = mapped(self.layer, y, self.layer.raw(x, self.context), True, False)[0]
        return x, -self.log_abs_det_jacobian(x, y) if ladj else None


class CouplingTransform(_Both, transforms.CouplingTransform):
    """The features by slices or one gather."""

    def __init__(self, layer: Any, context: Tensor | None) -> None:
        Transform.__init__(self)
        self.meta = partial(layer.meta, context)
        self.layer, self.context = layer, context
        self.arrangement = layer.arrangement()
        self.idx_a, self.idx_b = self.arrangement.kept, self.arrangement.changed

    def _run(self, x: Tensor, inverse: bool, ladj: bool) -> tuple[Tensor, Any]:
        layer, arrangement = self.layer, self.arrangement
        known = x.dtype in WIDE and x.ndim and x.shape[-1] == len(arrangement.order) and x.numel() > 0
        if not known or not broadcasts(self.context, x.shape[:-1]):
            return by_library(layer.library_transform(self.context), x, inverse, ladj)  # which may raise
        if inverse and ladj and not (torch.compiler.is_compiling() or is_pure(layer.hyper)):
            y = self._run(x, True, False)[0]  # two calls, as in the library
            return y, -self._run(y, False, True)[1]
        batch = x.shape[:-1]
        kept, changed = parts(x if x.ndim == 2 else x.reshape(-1, x.shape[-1]), arrangement)
        kept = layer.readable(kept)  # what a network writes into it stays, as in the library
        raw = layer.raw(kept.reshape(*batch, -1), self.context)
        y, log_det = mapped(layer, changed.reshape(*batch, -1), raw, inverse, ladj)
        if y.shape[:-1] != batch:  # which the library refuses as well
            raise RuntimeError(f"hyper: got parameters for a batch {tuple(y.shape[:-1])}, expected {tuple(batch)}")
        joint = whole(joined(kept, y.reshape(-1, y.shape[-1]), arrangement))
        return joint if x.ndim == 2 else joint.reshape(x.shape), log_det


class DependentTransform(_Both, transforms.DependentTransform):
    """Every feature by itself, with parameters from the context or with trained ones."""

    def __init__(self, layer: Any, raw: Tensor, shared: bool) -> None:
        Transform.__init__(self)
        self.layer, self.raw, self.shared, self.reinterpreted = layer, raw, shared, 1
        self._base: Any = None

    @property
    def base(self) -> Any:
        """The library's transform of these parameters."""
        if self._base is None:
            raw = self.raw.flatten(-2) if self.shared else self.raw
            self._base = library_map(self.layer, raw).base
        return self._base

    @property
    def domain(self) -> constraints.Constraint:
        """As in the library."""
        return constraints.independent(self.layer.known().domain, 1)

    @property
    def codomain(self) -> constraints.Constraint:
        """As in the library."""
        return constraints.real_vector

    @property
    def bijective(self) -> bool:
        """As in the library."""
        return True

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """As in the library."""
        return shape

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """As in the library."""
        return shape

    def _run(self, x: Tensor, inverse: bool, ladj: bool) -> tuple[Tensor, Any]:
        raw, univariate = self.raw, self.layer.known()
        if not self.shared and fits(x, raw, univariate.count):
            return mapped(self.layer, x, raw, inverse, ladj)
        one = raw if self.shared else raw.reshape(-1, univariate.count) if raw.numel() == raw.shape[-1] else None
        if one is None or not univariate.shared or not _fits_all(x, one):
            return by_library(transforms.DependentTransform(self.base, 1), x, inverse, ladj)
        y, log_det = univariate(x.reshape(-1, x.shape[-1]), one.unsqueeze(0), inverse=inverse)
        return y.reshape(x.shape), log_det.reshape(x.shape[:-1])


def _fits_all(x: Tensor, raw: Tensor) -> bool:
    """Whether ``raw`` ``(D, count)`` are the parameters of every ``x`` of a batch."""
    return (
        x.dtype in WIDE
        and raw.dtype is x.dtype
        and x.ndim > 0
        and x.shape[-1] == raw.shape[0]
        and raw.device == x.device
        and x.numel() > 0
    )
