"""The affine maps that coupling layers in the field use, described by one small value.

With raw scale ``a``, raw shift ``t``, ``v = gain * a + offset`` and the logistic function ``sigma``, a form gives

===========  ===========================================
scale        ``log s``
===========  ===========================================
``none``     ``0``
``exp``      ``v``
``sigmoid``  ``log(sigma(v) + eps)``
``tanh``     ``clamp * tanh(v)``
``atan``     ``clamp * 0.636 * atan(v)``
``softsign`` ``v / (1 + |v| / clamp)``
``softplus`` ``log(log(1 + exp(v)) + eps)``
===========  ===========================================

negated where ``negate`` is set, and then ``y = x*s + t`` (shift ``after``), ``(x + t)*s`` (``before``) or
``(x - t)*s`` (``subtract``), with ``t`` multiplied by ``shift_gain``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from hybridkern._arguments import as_flag, as_name, as_number, short

SCALES = ("none", "exp", "sigmoid", "tanh", "atan", "softsign", "softplus")
SHIFTS = ("after", "before", "subtract")
LAYOUTS = ("scale_shift", "shift_scale", "interleaved", "interleaved_scale_shift")
_NUMBERS = ("clamp", "offset", "eps", "gain", "shift_gain")
COUNT = 8  # of the numbers that the kernels take; those beyond _NUMBERS are zero: room for forms to come
Spec = tuple[int, tuple[float, ...]]
ATAN_FACTOR = 0.636  # FrEIA's rounding of 2/pi; part of the form, so kept to the digit


@dataclass(frozen=True)
class CouplingForm:
    """How a coupling turns the raw network output into an affine map of ``x``.

    Attributes:
        scale: the map from raw scale to ``log s``; one of the names in the table of this module.
        clamp: bound of ``log s`` for ``tanh``, ``atan`` and ``softsign``; a positive number, unused by the others.
        offset: added to the raw scale before the map.
        eps: added to ``sigma(v)`` by ``sigmoid`` and to ``log(1 + exp(v))`` by ``softplus``; not negative, unused by
            the others.
        shift: ``"after"``: ``x*s + t``; ``"before"``: ``(x + t)*s``; ``"subtract"``: ``(x - t)*s``.
        layout: where dim 1 of the parameters holds what: ``"scale_shift"`` and ``"shift_scale"`` are halves,
            ``"interleaved"`` is shift at ``0::2`` and scale at ``1::2``, ``"interleaved_scale_shift"`` the other way
            round. With scale ``"none"`` all of it is shift.
        gain: multiplies the raw scale before the map.
        shift_gain: multiplies the raw shift.
        negate: changes the sign of ``log s``, so that ``s`` divides.

    Raises:
        TypeError: a value of another type.
        ValueError: an unknown name, or a number outside its range.
    """

    scale: str = "exp"
    clamp: float = 1.0
    offset: float = 0.0
    eps: float = 0.0
    shift: str = "after"
    layout: str = "scale_shift"
    gain: float = 1.0
    shift_gain: float = 1.0
    negate: bool = False
    _specs: tuple[Spec, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        for name, choices in (("scale", SCALES), ("shift", SHIFTS), ("layout", LAYOUTS)):
            as_name(f"CouplingForm.{name}", getattr(self, name), choices)
        for name in _NUMBERS:
            object.__setattr__(self, name, as_number(f"CouplingForm.{name}", getattr(self, name)))
        object.__setattr__(self, "negate", as_flag("CouplingForm.negate", self.negate))
        if self.clamp <= 0:
            raise ValueError(f"CouplingForm.clamp: got {self.clamp!r}, expected a positive number")
        if self.eps < 0:
            raise ValueError(f"CouplingForm.eps: got {self.eps!r}, expected a number that is not negative")
        numbers = (*(getattr(self, name) for name in _NUMBERS), *(0.0,) * (COUNT - len(_NUMBERS)))
        object.__setattr__(self, "_specs", tuple((self._code(inverse), numbers) for inverse in (False, True)))

    @property
    def has_scale(self) -> bool:
        """Whether the parameters hold a scale beside the shift."""
        return self.scale != "none"

    def _code(self, inverse: bool) -> int:
        """The discrete choices packed for the kernels; decoded by ``decode_form`` in csrc/affine_coupling/form.h."""
        return (
            SCALES.index(self.scale)
            | SHIFTS.index(self.shift) << 4
            | LAYOUTS.index(self.layout) << 8
            | int(self.negate) << 12
            | int(inverse) << 13
        )

    def numbers(self) -> tuple[float, ...]:
        """Choices, as one number, and numbers: nine floats, equal for two forms that compute the same."""
        code, numbers = self.spec(False)
        return float(code), *numbers

    @classmethod
    def from_numbers(cls, numbers: Sequence[float]) -> CouplingForm:
        """The form whose :meth:`numbers` these are; six of them, as version 0.1 wrote, are understood."""
        code, *rest = numbers
        return decoded(int(code), rest)[0]

    def code(self, inverse: bool) -> int:
        """Packed discrete choices with the direction, as the kernels take them."""
        return self.spec(inverse)[0]

    def spec(self, inverse: bool) -> Spec:
        """The form and the direction as the kernels take them, code and numbers; :func:`decoded` undoes it."""
        return self._specs[int(inverse)]  # Dynamo of torch 2.11 does not index a tuple by a bool


def shifts_first(code: int) -> bool:
    """Whether a form in a direction is ``(x + t)*s``: the shift comes before the scale."""
    return code & 15 != 0 and (code >> 4 & 15 != 0) != bool(code >> 13 & 1)


def decoded(code: int, numbers: Sequence[float]) -> tuple[CouplingForm, bool]:
    """The form and the direction that :meth:`CouplingForm.spec` packed."""
    return _decoded(code, *numbers[: len(_NUMBERS)])


@lru_cache(maxsize=256)
def _decoded(
    code: int, clamp: float, offset: float, eps: float, gain: float, shift_gain: float
) -> tuple[CouplingForm, bool]:
    scale, shift, layout = SCALES[code & 15], SHIFTS[code >> 4 & 15], LAYOUTS[code >> 8 & 15]
    form = CouplingForm(scale, clamp, offset, eps, shift, layout, gain, shift_gain, bool(code >> 12 & 1))
    return form, bool(code >> 13 & 1)


NAMED_FORMS: dict[str, CouplingForm] = {
    "exp": CouplingForm(),
    "glow": CouplingForm(scale="sigmoid", offset=2.0, shift="before"),
    "additive": CouplingForm(scale="none"),
    "realnvp": CouplingForm(scale="tanh", clamp=2.0, gain=0.5),
    "normflows": CouplingForm(scale="sigmoid", offset=2.0, shift="subtract", layout="interleaved"),
    "nflows": CouplingForm(scale="sigmoid", offset=2.0, eps=1e-3, layout="shift_scale"),
    "freia": CouplingForm(scale="atan", clamp=2.0),
    "zuko": CouplingForm(scale="softsign", clamp=-math.log(1e-3)),
    # s from 1/e to e, whatever the network says, so that neither direction of a flow can run away through it
    "bounded": CouplingForm(scale="tanh"),
}
_NORMFLOWS = NAMED_FORMS["normflows"]
_FREIA = NAMED_FORMS["freia"]
NAMED_FORMS |= {
    "normflows_sigmoid_inv": replace(_NORMFLOWS, negate=True),
    "normflows_exp": replace(_NORMFLOWS, scale="exp", offset=0.0, negate=True),
    # their masked autoregressive transforms
    "nflows_maf": CouplingForm(scale="softplus", eps=1e-3, layout="interleaved_scale_shift"),
    "normflows_maf": CouplingForm(scale="sigmoid", offset=2.0, eps=1e-3, layout="interleaved_scale_shift"),
    "zuko_maf": replace(NAMED_FORMS["zuko"], layout="interleaved"),
    "freia_tanh": replace(_FREIA, scale="tanh"),
    # 2*sigma(a) - 1 = tanh(a/2)
    "freia_sigmoid": replace(_FREIA, scale="tanh", gain=0.5),
    # FrEIA's AllInOneBlock scales the whole network output by 0.1 first
    "freia_all_in_one": CouplingForm(scale="tanh", clamp=2.0, gain=0.05, shift_gain=0.1),
}


def resolve_form(form: str | CouplingForm) -> CouplingForm:
    """The form of that name, or ``form`` itself.

    Raises:
        ValueError: no form has that name.
        TypeError: neither a name nor a form.
    """
    if isinstance(form, str):
        found = NAMED_FORMS.get(form)
        if found is None:
            raise ValueError(f"form: got {form!r}, expected one of {', '.join(NAMED_FORMS)} or a CouplingForm")
        return found
    if isinstance(form, CouplingForm):
        return form
    raise TypeError(f"form: got {short(form)}, expected a name or a CouplingForm")


def form_text(form: CouplingForm) -> str:
    """``form`` as :func:`resolve_form` takes it: its name where it has one."""
    return next((repr(name) for name, named in NAMED_FORMS.items() if named == form), repr(form))
