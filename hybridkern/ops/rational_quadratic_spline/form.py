"""From raw network output to the knots of a rational-quadratic spline, described by one small value.

With ``K`` bins on ``[low, high]``, ``R = high - low``, the raw widths ``a``, the raw derivatives ``r`` and
``clip(v, c) = v / (1 + |v| / c)``, a scheme gives

==========  =======================================================  ================================================
scheme      widths (heights alike, from raw heights)                 derivative at a knot
==========  =======================================================  ================================================
``nflows``  ``R (m + (1 - m K) softmax(gain a))``                    ``min_derivative + softplus(beta r) / beta``
``zuko``    ``R softmax(clip(gain a, -log(slope) / 2))``             ``exp(clip(r, -log(slope)))``
==========  =======================================================  ================================================

where ``m`` is ``min_width`` (``min_height``), and ``beta`` is 1, or ``log(2) / (1 - min_derivative)`` with
``identity``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from hybridkern._arguments import as_flag, as_name, as_number, as_size, is_number, is_sizes, short

SCHEMES = ("nflows", "zuko")
TAILS = ("linear", "box", "circular")
MOST_BINS = 64
_COUNTS = tuple(range(MOST_BINS + 1))  # an index is a constant to torch.compile, where a number may be a symbol
LARGEST = 1e6  # of a bound, and 1 / LARGEST the smallest width of an interval
Numbers = tuple[int, float, float, float, float, float, float, float]


@dataclass(frozen=True)
class SplineForm:
    """How a spline turns the raw network output into its knots.

    Attributes:
        scheme: ``"nflows"`` (also that of normflows and glasflow) or ``"zuko"``; see the table of this module.
        min_width: smallest width of a bin, as a part of the interval; scheme ``"nflows"`` alone.
        min_height: the same of the heights.
        min_derivative: smallest derivative at a knot; scheme ``"nflows"`` alone.
        slope: smallest derivative at a knot, and what clips the raw numbers; scheme ``"zuko"`` alone; in ``(0, 1)``.
        gain: multiplies raw widths and heights. The libraries' coupling layers divide by the root of the hidden
            width of their network: ``gain=hidden**-0.5``.
        identity: raw derivatives of zero give a derivative of 1, so that a network whose output is zero gives the
            identity; scheme ``"nflows"`` alone. (The scheme ``"zuko"`` does so by itself.)

    Raises:
        TypeError: a value of another type.
        ValueError: an unknown name, or a number outside its range.
    """

    scheme: str = "nflows"
    min_width: float = 1e-3
    min_height: float = 1e-3
    min_derivative: float = 1e-3
    slope: float = 1e-3
    gain: float = 1.0
    identity: bool = False

    def __post_init__(self) -> None:
        as_name("SplineForm.scheme", self.scheme, SCHEMES)
        for name in ("min_width", "min_height"):
            self._number(name, lambda v: 0 <= v < 0.5, "a number from 0 to below 1/2")
        self._number("min_derivative", lambda v: 0 <= v < 1, "a number from 0 to below 1")
        self._number("slope", lambda v: 1e-30 <= v < 1, "a number from 1e-30 to below 1")
        self._number("gain", lambda v: math.isfinite(v), "a finite number")
        object.__setattr__(self, "identity", as_flag("SplineForm.identity", self.identity))

    def _number(self, name: str, holds: object, expected: str) -> None:
        given = getattr(self, name)
        object.__setattr__(self, name, as_number(f"SplineForm.{name}", given, holds, expected))  # type: ignore[arg-type]

    @property
    def beta(self) -> float:
        """What multiplies raw derivatives inside the softplus, and divides it."""
        return math.log(2.0) / (1.0 - self.min_derivative) if self.identity else 1.0

    def derivatives(self, bins: int, tails: str = "linear") -> int:
        """How many raw derivatives an element has.

        Linear tails have derivative 1 at both ends, so there are ``bins - 1``. A box trains its ends: ``bins + 1``.
        Circular splines have one derivative at both ends, which the scheme ``"nflows"`` trains (``bins``) and the
        scheme ``"zuko"`` sets to 1 (``bins - 1``).
        """
        if tails == "box":
            return bins + 1
        return bins if tails == "circular" and self.scheme == "nflows" else bins - 1

    def parameters(self, bins: int, tails: str = "linear") -> int:
        """How many raw numbers an element has: widths, heights and derivatives, in this order."""
        return 2 * bins + self.derivatives(bins, tails)

    def spec(self, bins: int, interval: tuple[float, float], tails: str, inverse: bool) -> Numbers:
        """Everything but the tensors, as the kernels take it; :func:`decoded` undoes it."""
        code = bins | SCHEMES.index(self.scheme) << 8 | TAILS.index(tails) << 10 | int(inverse) << 12
        is_zuko = self.scheme == "zuko"
        least = self.slope if is_zuko else self.min_derivative
        widths = (0.0, 0.0) if is_zuko else (self.min_width, self.min_height)
        return code, *interval, *widths, least, self.gain, 1.0 if is_zuko else self.beta


class Spline(NamedTuple):
    """What :meth:`SplineForm.spec` packed."""

    bins: int
    is_zuko: bool
    tails: str
    inverse: bool
    low: float
    high: float
    min_width: float
    min_height: float
    least: float
    gain: float
    beta: float

    @property
    def derivatives(self) -> int:
        """How many raw derivatives an element has."""
        if self.tails == "box":
            return self.bins + 1
        return self.bins if self.tails == "circular" and not self.is_zuko else self.bins - 1

    @property
    def parameters(self) -> int:
        """How many raw numbers an element has."""
        return 2 * self.bins + self.derivatives

    @property
    def wraps(self) -> bool:
        """Whether values are turned by half the interval first, and all of them lie in it then."""
        return self.is_zuko and self.tails == "circular"


def decoded(code: int, *numbers: float) -> Spline:
    """The spline that :meth:`SplineForm.spec` packed."""
    tails = TAILS[code >> 10 & 3]
    return Spline(code & 255, bool(code >> 8 & 3), tails, bool(code >> 12 & 1), *numbers)


NAMED_SPLINES = {"nflows": SplineForm(), "nflows_identity": SplineForm(identity=True), "zuko": SplineForm("zuko")}


def resolve_spline(spline: str | SplineForm) -> SplineForm:
    """The form of that name, or ``spline`` itself.

    Raises:
        ValueError: no form has that name.
        TypeError: neither a name nor a form.
    """
    if isinstance(spline, SplineForm):
        return spline
    if isinstance(spline, str) and spline in NAMED_SPLINES:
        return NAMED_SPLINES[spline]
    error = ValueError if isinstance(spline, str) else TypeError
    raise error(f"spline: got {short(spline)}, expected one of {', '.join(NAMED_SPLINES)} or a SplineForm")


def check_bins(bins: object, form: SplineForm) -> int:
    """``bins`` as an integer that the form can serve.

    Raises:
        TypeError: not an integer.
        ValueError: too few or too many.
    """
    expected = f"an integer from 2 to {MOST_BINS}"
    if type(bins) is int and 2 <= bins <= MOST_BINS:
        count = _COUNTS[bins]
    else:
        count = as_size("bins", bins, 2, expected=expected)
    if count > MOST_BINS:
        raise ValueError(f"bins: got {count}, expected {expected}")
    least = max(form.min_width, form.min_height)
    if form.scheme == "nflows" and least * count >= 1:
        raise ValueError(f"bins: got {count}, expected fewer than 1 / {least:g}, the smallest width or height of a bin")
    return count


def interval_of(bound: object) -> tuple[float, float]:
    """``(-bound, bound)``, or the pair that ``bound`` is.

    Raises:
        TypeError: neither a number nor a pair of numbers.
        ValueError: not finite, not in order, or out of range.
    """
    if type(bound) is float and 1 / LARGEST <= bound <= LARGEST:
        return -bound, bound  # the usual case
    expected = f"a number from {1 / LARGEST:g} to {LARGEST:g}, or a pair (low, high) of finite numbers that far apart"
    if is_number(bound):
        high = as_number("bound", bound, lambda v: 1 / LARGEST <= v <= LARGEST, expected)
        return -high, high
    pair = list(bound) if is_sizes(bound) else []  # type: ignore[call-overload]
    if len(pair) != 2 or not all(map(is_number, pair)):
        raise TypeError(f"bound: got {short(bound)}, expected {expected}")
    low, high = map(float, pair)
    if not (abs(low) <= LARGEST and abs(high) <= LARGEST and high - low >= 1 / LARGEST):
        raise ValueError(f"bound: got {short(bound)}, expected {expected}")
    return low, high


def check_tails(tails: object) -> str:
    """``tails``, one of the names in :data:`TAILS`.

    Raises:
        TypeError, ValueError: it is none.
    """
    return as_name("tails", tails, TAILS)
