"""Maps of one number each, as coupling and autoregressive layers apply them: affine ones and splines.

An element is called as ``element(x, params, log_det, inverse=...)`` with ``x`` ``(B, n)`` and the raw parameters
``(B, n * element.outputs)``, those of a number together; it returns ``y`` and ``log_det`` plus its own, ``(B,)``. One
that has a method ``numbers`` says by it what it computes, for the ``state_dict`` of the layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from hybridkern import ops
from hybridkern._arguments import as_number
from hybridkern._saved.built import Built
from hybridkern.ops.affine_coupling.form import CouplingForm, resolve_form
from hybridkern.ops.rational_quadratic_spline.form import SplineForm, check_bins, resolve_spline


class Element(Protocol):
    """See the text of this module."""

    @property
    def outputs(self) -> int:
        """Raw parameters of one number."""

    def __call__(
        self, x: Tensor, params: Tensor, log_det: Tensor | None = None, *, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The map, or its inverse."""


@dataclass(frozen=True)
class AffineElement(Built):
    """``x*s + t`` of a form of :func:`hybridkern.ops.affine_coupling`, whose layout is replaced by that of elements.

    Raises:
        TypeError, ValueError: no such form.
    """

    form: CouplingForm

    def __init__(self, form: str | CouplingForm) -> None:
        resolved = resolve_form(form)
        if not resolved.layout.startswith("interleaved"):
            resolved = replace(resolved, layout="interleaved_scale_shift")
        object.__setattr__(self, "form", resolved)

    @property
    def outputs(self) -> int:
        """Scale and shift, or the shift alone."""
        return 2 if self.form.has_scale else 1

    def numbers(self) -> tuple[float, ...]:
        """The form as numbers, equal for two elements that compute the same."""
        return self.form.numbers()

    def __call__(
        self, x: Tensor, params: Tensor, log_det: Tensor | None = None, *, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The map, or its inverse."""
        return ops.affine_coupling(x, params, log_det, form=self.form, inverse=inverse)


@dataclass(frozen=True)
class SplineElement(Built):
    """A monotonic rational-quadratic spline on ``[-bound, bound]``, the identity outside.

    Args:
        spline, bins, bound: as :func:`hybridkern.ops.rational_quadratic_spline` takes them.

    Raises:
        TypeError, ValueError: an argument of the wrong type or range.
    """

    form: SplineForm
    bins: int
    bound: float

    def __init__(self, spline: str | SplineForm, bins: int, bound: float) -> None:
        form = resolve_spline(spline)
        object.__setattr__(self, "form", form)
        object.__setattr__(self, "bins", check_bins(bins, form))
        positive = "a finite number greater than 0"
        object.__setattr__(self, "bound", as_number("bound", bound, lambda b: 0 < b < math.inf, positive))

    @property
    def outputs(self) -> int:
        """Raw widths, heights and derivatives of one spline."""
        return self.form.parameters(self.bins, "linear")

    def numbers(self) -> tuple[float, ...]:
        """Form, bins and interval as numbers, equal for two elements that compute the same."""
        code, *rest = self.form.spec(self.bins, (-self.bound, self.bound), "linear", False)
        return float(code), *rest

    def __call__(
        self, x: Tensor, params: Tensor, log_det: Tensor | None = None, *, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The map, or its inverse."""
        raw = params.unflatten(1, (x.shape[1], self.outputs))
        return ops.rational_quadratic_spline(
            x, raw, log_det, spline=self.form, bins=self.bins, bound=self.bound, inverse=inverse
        )
