"""The Triton kernels under evidence: operators, the arguments they are run with, and where a rule does not hold.

A subject runs an operator, forward and backward, and compares the results with float64. Whatever its launches are
(interpreted with every access recorded, or the compiled code executed) is decided around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import hybridkern
from hybridkern import ops
from tests.evidence.access import Exemption
from tests.evidence.interpreter import recorded
from tests.evidence.launches import Launch
from tests.ops import checks, inputs, layouts, oracle

Args = dict[str, Tensor]
Layout = Callable[[Tensor], Tensor]
Check = Callable[[Args, Layout], None]
Names = tuple[str, ...]
REDUCTIONS = ("none", "sum")


@dataclass(frozen=True)
class Case:
    """Shape of ``x``, dtype of ``x``, dtype of the parameters, layout of all of them."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    parameters: torch.dtype = torch.float32
    layout: str = "contiguous"

    @property
    def label(self) -> str:
        """For tests' names and the table."""
        names = [str(dtype).removeprefix("torch.") for dtype in (self.dtype, self.parameters)]
        dtypes = names[0] if names[0] == names[1] else "+".join(names)
        return f"{'x'.join(map(str, self.shape))} {dtypes} {self.layout}"


@dataclass(frozen=True)
class Subject:
    """An operator in one variant: arguments for a case, the bare operator, and the comparison that runs it."""

    name: str
    arguments: Callable[[Case], Args]
    operator: Callable[..., Any]
    check: Check

    def run(self, case: Case) -> None:
        """Runs it on the Triton backend, on CPU tensors, and compares; gradients come in the layout of the case."""
        with on_triton():
            self.check(self.arguments(case), layouts.LAYOUTS[case.layout])

    def launches(self, case: Case) -> list[Launch]:
        """The launches of forward and backward, none of them carried out: what they would compute is not looked at."""
        place = layouts.LAYOUTS[case.layout]
        with recorded() as found, on_triton():
            leaves = checks.leaves_of(self.arguments(case))
            results = self.operator(**leaves)
            results = results if isinstance(results, tuple) else (results,)
            outputs = [value for value in results if value.requires_grad]
            upstream = [torch.ones_like(value) for value in outputs]
            upstream = [place(value) if value.ndim > 1 else value for value in upstream]
            torch.autograd.grad(outputs, list(leaves.values()), upstream)
        return found


@contextmanager
def on_triton() -> Iterator[None]:
    """The Triton backend serves CPU tensors in the block."""
    from hybridkern.ops._backends import interpret_triton

    with interpret_triton(), hybridkern.use_backend("triton"):
        yield


F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
# Rows and strides of whole sectors; long enough that what is read or written once a row does not count.
ALIGNED = (Case((3, 8, 16, 16)), Case((3, 8, 16, 16), F32, BF16), Case((3, 8, 16, 16), F32, F32, "channels_last"))
# Small, since the interpreter takes a tenth of a second a program; of several programs all the same.
AWKWARD = (
    Case((3, 3, 5, 3)),
    Case((3, 3, 5, 3), BF16, BF16),
    Case((3, 3, 5, 3), F32, F16, "channels_last"),
    Case((2, 5, 3, 3), F32, F32, "channel_slice"),
    Case((2, 5, 3, 3), F32, BF16, "channels_last_slice"),
    Case((9, 13)),
    Case((1, 1, 1, 1)),
    Case((2, 3, 5, 11), F32, F32, "misaligned"),
    Case((2, 8, 4, 4)),
)

FLOAT64 = Case((2, 4, 5, 3), torch.float64, torch.float64)


def _placed(case: Case, args: Args) -> Args:
    return {name: layouts.LAYOUTS[case.layout](v) if v.ndim > 1 else v for name, v in args.items()}


def coupling(form: str, inverse: bool = False) -> Subject:
    """``affine_coupling`` of a named form."""

    def arguments(case: Case) -> Args:
        args = {
            "x": inputs.normal(0, case.shape, case.dtype),
            "params": inputs.coupling_params(form, case.shape, case.parameters, reach=0.3),
            "log_det": inputs.normal(2, case.shape[:1], torch.float32),
        }
        return _placed(case, args)

    name = f"affine_coupling {form}{' inverse' if inverse else ''}"
    operator = partial(ops.affine_coupling, form=form, inverse=inverse)
    return Subject(name, arguments, operator, lambda args, lie: checks.check_coupling(args, form, inverse, lie))


def rounding(beta: bool, inverse: bool = False) -> Subject:
    """``rounding_coupling`` with or without the factor."""

    def arguments(case: Case) -> Args:
        args = {
            "x": inputs.normal(0, case.shape, case.dtype, scale=9.0).round(),
            "t": inputs.normal(1, case.shape, case.parameters, scale=3.0),
        }
        return _placed(case, args) | ({"beta": torch.tensor([1.75])} if beta else {})

    name = f"rounding_coupling{' with beta' if beta else ''}{' inverse' if inverse else ''}"
    operator = partial(ops.rounding_coupling, inverse=inverse)
    return Subject(name, arguments, operator, lambda args, lie: checks.check_rounding(args, inverse, lie))


def _density(name: str, operator: Callable[..., Any], check: Check, names: Names, shared: bool = False) -> Subject:
    def arguments(case: Case) -> Args:
        own = (1, *case.shape[1:]) if shared else case.shape
        own = (own[0], 5, *own[1:]) if "logits" in names else own
        args = {"x": inputs.normal(0, case.shape, case.dtype, scale=2.0)}
        for i, parameter in enumerate(names, 1):
            args[parameter] = inputs.normal(i, own, case.parameters, scale=0.7)
        return _placed(case, args)

    return Subject(f"{name}{', shared parameters' if shared else ''}", arguments, operator, check)


def logistic(reduction: str, shared: bool = False) -> Subject:
    """``discretized_logistic_log_prob``."""
    operator = partial(ops.discretized_logistic_log_prob, bin_width=0.5, reduction=reduction)
    check: Check = lambda args, lie: checks.check_logistic(args, 0.5, reduction, lie)  # noqa: E731
    return _density(f"discretized_logistic {reduction}", operator, check, _PARAMETERS, shared)


def mixture(reduction: str, shared: bool = False) -> Subject:
    """``discretized_logistic_mixture_log_prob`` of five components."""
    operator = partial(ops.discretized_logistic_mixture_log_prob, bin_width=0.5, reduction=reduction)
    check: Check = lambda args, lie: checks.check_mixture(args, 0.5, reduction, lie)  # noqa: E731
    return _density(f"logistic_mixture {reduction}", operator, check, ("logits", *_PARAMETERS), shared)


def gaussian(names: Names, shared: bool = False) -> Subject:
    """``gaussian_log_prob``, standard normal without parameters."""
    check: Check = lambda args, lie: checks.check_gaussian(args)  # noqa: E731
    return _density(f"gaussian{'' if names else ' standard'}", ops.gaussian_log_prob, check, names, shared)


def paired() -> Subject:
    """``paired_conv1x1``; the shape of a case is that of a half."""

    def arguments(case: Case) -> Args:
        channels = 2 * case.shape[1]
        halves = {name: inputs.normal(i, case.shape, case.dtype) for i, name in enumerate(("first", "second"))}
        return _placed(case, halves) | {
            "weight": inputs.normal(2, (channels, channels), case.parameters),
            "bias": inputs.normal(3, (channels,), case.parameters),
        }

    return Subject("paired_conv1x1", arguments, ops.paired_conv1x1, checks.check_paired_conv1x1)


_PARAMETERS = ("mean", "log_scale")
# One of each kernel, for what takes long: all targets, all properties.
MAIN = [
    coupling("glow"),
    coupling("realnvp", inverse=True),
    rounding(beta=True),
    logistic("sum"),
    mixture("sum"),
    gaussian(_PARAMETERS),
    paired(),
]
# Every variant, for what is quick.
SUBJECTS = [
    *(coupling(form, inverse) for form in oracle.FORMS for inverse in (False, True)),
    *(rounding(beta, inverse) for beta in (False, True) for inverse in (False, True)),
    *(kind(reduction, shared) for kind in (logistic, mixture) for reduction in REDUCTIONS for shared in (False, True)),
    *(gaussian(_PARAMETERS, shared) for shared in (False, True)),
    gaussian(()),
    paired(),
]

_SHARED = "shared by the batch: read for each example, or group of them, from the cache"


def _is_shared(value: Tensor) -> bool:
    return value.shape[0] == 1


def _is_total(value: Tensor) -> bool:
    return value.ndim == 1


EXEMPTIONS: tuple[Exemption, ...] = (
    Exemption("affine_coupling.backward_kernel", "raw", "the shift is in no gradient: its half stays unread", 1),
    Exemption("affine_coupling.backward_kernel", "known", "an additive coupling's gradients do not hang on x", 0),
    Exemption("affine_coupling.backward_kernel", "grad_log_det", "a number an example, read by each of its programs"),
    Exemption("*.backward_kernel", "grad", "a number an example, read by each of its programs", applies=_is_total),
    Exemption("rounding_coupling.*", "beta", "one number for all programs"),
    *(Exemption("*", name, _SHARED, applies=_is_shared) for name in ("logits", *_PARAMETERS)),
    Exemption("paired_conv1x1.*", "weight", "read by each program, once for all its positions, from the cache"),
    Exemption("paired_conv1x1.*", "bias", "read by each program, once for all its positions, from the cache"),
)


def often_read(launch: Launch) -> list[str]:
    """The arguments that an exemption lets a kernel read any number of times."""
    return [
        name
        for name, value in launch.arguments.items()
        if isinstance(value, Tensor)
        and any(e.most_reads is None and e.names(launch.name, name, value) for e in EXEMPTIONS)
    ]
