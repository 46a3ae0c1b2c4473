"""The maps of one number that zuko's transforms are made of, as hybridkern's operators compute them."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor
from torch.distributions import constraints
from zuko import transforms
from zuko.flows import spline

from hybridkern.integrations._layer import patched_methods
from hybridkern.ops import affine_coupling, rational_quadratic_spline
from hybridkern.ops.affine_coupling.form import CouplingForm
from hybridkern.ops.rational_quadratic_spline.form import LARGEST, MOST_BINS, SplineForm

SLOPE = 1e-3  # zuko's default, of all of its maps
WIDTH, MANY = 4, 2000  # on more rows than these of fewer numbers the operator is no faster
REAL: constraints.Constraint = constraints.real


def is_narrow(x: Tensor) -> bool:
    """Whether ``x`` ``(..., D)`` has many rows of very few numbers each."""
    return x.shape[-1] < WIDTH and x.numel() > MANY * x.shape[-1]


@dataclass(frozen=True)
class Affine:
    """``MonotonicAffineTransform``: ``exp(a) x + b`` with ``a`` clipped; shift and scale by turns."""

    form: CouplingForm
    count: ClassVar[int] = 2
    shared: ClassVar[bool] = False  # whether a batch may share its parameters
    name: ClassVar[str] = "affine_coupling"
    domain: ClassVar[constraints.Constraint] = REAL

    def __call__(
        self, x: Tensor, params: Tensor, log_det: Tensor | None = None, *, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """``y`` ``(B, D)``, and ``log_det`` ``(B,)`` plus its own; of ``x`` ``(B, D)`` and ``params`` ``(B, 2 D)``."""
        return affine_coupling(x, params, log_det, form=self.form, inverse=inverse)

    def undone(self, y: Tensor, params: Tensor, log_det: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The inverse of ``y`` ``(D, B)`` by ``params`` ``(2 D, B)``: for a few rows by PyTorch, which is faster.

        Its log-determinant is added to ``log_det`` ``(B,)``; ``None`` stays that.
        """
        params = params.to(y.dtype)
        shift, raw = params[0::2], params[1::2]
        log_scale = raw / (1 + raw.abs() / self.form.clamp)
        return (y - shift) / log_scale.exp(), None if log_det is None else log_det - log_scale.sum(0)


@dataclass(frozen=True)
class Shift:
    """``AdditiveTransform``: ``x + b``."""

    count: ClassVar[int] = 1
    shared: ClassVar[bool] = False
    name: ClassVar[str] = "PyTorch's addition"
    domain: ClassVar[constraints.Constraint] = REAL

    def __call__(
        self, x: Tensor, params: Tensor, log_det: Tensor | None = None, *, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """As that of :class:`Affine`, with ``params`` ``(B, D)``."""
        return x - params if inverse else x + params, x.new_zeros(len(x)) if log_det is None else log_det

    def undone(self, y: Tensor, params: Tensor, log_det: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """As that of :class:`Affine`, with ``params`` ``(D, B)``."""
        return y - params, log_det


@dataclass(frozen=True)
class Spline:
    """``MonotonicRQSTransform``, or ``CircularRQSTransform``."""

    form: SplineForm
    bins: int
    bound: float
    circular: bool
    shared: ClassVar[bool] = True
    name: ClassVar[str] = "rational_quadratic_spline"

    @property
    def count(self) -> int:
        """Raw widths, heights and derivatives of one number."""
        return 3 * self.bins - 1

    @property
    def domain(self) -> constraints.Constraint:
        """Of the library's transform."""
        return constraints.interval(-self.bound, self.bound) if self.circular else REAL

    def __call__(
        self, x: Tensor, params: Tensor, log_det: Tensor | None = None, *, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """As that of :class:`Affine`; ``params`` ``(B, D * count)``, or ``(1, D, count)`` for all of the batch."""
        return rational_quadratic_spline(
            x,
            params if params.ndim == 3 else params.unflatten(1, (x.shape[1], self.count)),
            log_det,
            spline=self.form,
            bins=self.bins,
            bound=self.bound,
            tails="circular" if self.circular else "linear",
            inverse=inverse,
        )

    def undone(self, y: Tensor, params: Tensor, log_det: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """As that of :class:`Affine`, with ``params`` ``(D * count, B)``."""
        x, total = self(y.T, params.T, log_det, inverse=True)
        return x.T, None if log_det is None else total


Univariate = Affine | Shift | Spline


def recognized(univariate: object, shapes: Sequence[Sequence[int]]) -> Univariate | str:
    """The map that a constructor of zuko builds from parameters of these shapes; or why hybridkern has none."""
    function, options = _taken_apart(univariate)
    sizes = [tuple(shape) for shape in shapes]
    build = _BUILDERS.get(function) if isinstance(function, Hashable) else None
    name = getattr(function, "__name__", type(function).__name__)
    if build is None:
        return f"the univariate transform {name} is not known to hybridkern"
    own = patched_methods(function) if isinstance(function, type) else []
    if own:
        return f"a custom method: {', '.join(own)} of {name}"
    found = build(sizes, options)
    return f"{name} with these shapes or options is not known to hybridkern" if found is None else found


def _taken_apart(univariate: object) -> tuple[Any, Mapping[str, Any]]:
    """The function and the keywords of a partial; positional arguments are not looked for."""
    if type(univariate) is partial and not univariate.args:
        return univariate.func, univariate.keywords
    return univariate, {}


def _numbers(options: Mapping[str, Any], **defaults: float) -> list[float] | None:
    """The values of these options; ``None`` where there are others, or something else than positive numbers."""
    values = list((defaults | dict(options)).values())
    if options.keys() - defaults.keys() or not all(type(v) in (int, float) and 0 < v < math.inf for v in values):
        return None
    return [float(v) for v in values]


def _affine(shapes: list[tuple[int, ...]], options: Mapping[str, Any]) -> Univariate | None:
    given = _numbers(options, slope=SLOPE)
    if shapes != [(), ()] or given is None or given[0] >= 1:
        return None
    return Affine(CouplingForm(scale="softsign", clamp=-math.log(given[0]), layout="interleaved"))


def _shift(shapes: list[tuple[int, ...]], options: Mapping[str, Any]) -> Univariate | None:
    return Shift() if shapes == [()] and not options else None


def _spline(shapes: list[tuple[int, ...]], options: Mapping[str, Any]) -> Univariate | None:
    return _rational(shapes, _numbers(options, bound=5.0, slope=SLOPE), circular=False)


def _circular(shapes: list[tuple[int, ...]], options: Mapping[str, Any]) -> Univariate | None:
    given = _numbers(options, slope=SLOPE)
    return _rational(shapes, given and [math.pi, *given], circular=True)


def _rational(shapes: list[tuple[int, ...]], given: list[float] | None, circular: bool) -> Univariate | None:
    bins = shapes[0][0] if shapes and len(shapes[0]) == 1 else 0
    if given is None or not 2 <= bins <= MOST_BINS or shapes != [(bins,), (bins,), (bins - 1,)]:
        return None
    bound, slope = given
    if not (1 / LARGEST <= bound <= LARGEST and 1e-30 <= slope < 1):
        return None
    return Spline(SplineForm("zuko", slope=slope), bins, bound, circular)


_BUILDERS: Mapping[Any, Callable[[list[tuple[int, ...]], Mapping[str, Any]], Univariate | None]] = {
    transforms.MonotonicAffineTransform: _affine,
    transforms.AdditiveTransform: _shift,
    transforms.MonotonicRQSTransform: _spline,
    spline.CircularRQSTransform: _circular,
}
