"""An affine coupling on vectors and the scale and offset that follow it, in one pass: schema, autograd and function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hybridkern import _tensors
from hybridkern.ops._autograd import Gradient, Tensors, needs_grad, quick, recorded
from hybridkern.ops._backends import choose
from hybridkern.ops._gpu import run, runner
from hybridkern.ops._operator import Operator, option_types
from hybridkern.ops.affine_coupling.form import CouplingForm, decoded, resolve_form
from hybridkern.ops.affine_coupling.operator import affine_coupling
from hybridkern.ops.affine_coupling_actnorm import reference as _reference
from hybridkern.ops.affine_coupling_actnorm.contract import CONTRACTS

_FORM = "int code, float[8] numbers"


def _fake_forward(x: Tensor, params: Tensor, scale: Tensor, offset: Tensor, *form: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[:1], dtype=_tensors.total_dtype(x))


def _fake_backward(
    grad_y: Tensor, grad_log_det: Tensor, x: Tensor, params: Tensor, scale: Tensor, *form: Any
) -> tuple[Tensor, ...]:
    return tuple(value.new_empty(value.shape) for value in (x, params, scale, scale))


OPERATOR = Operator(
    "affine_coupling_actnorm",
    {
        "forward": f"(Tensor x, Tensor params, Tensor scale, Tensor offset, {_FORM}) -> (Tensor, Tensor)",
        "backward": "(Tensor grad_y, Tensor grad_log_det, Tensor x, Tensor params, Tensor scale, "
        f"{_FORM}) -> (Tensor, Tensor, Tensor, Tensor)",
    },
    {"forward": _fake_forward, "backward": _fake_backward},
    contracts=CONTRACTS,
    made_of="affine_coupling",
)


_HALVES = ("scale_shift", "shift_scale")  # the layouts that the kernel of the whole reads
_forward: Callable[..., tuple[Tensor, Tensor]] = runner(OPERATOR, "forward")


def _backward(
    backend: str, saved: Tensors, grads: Tensors, form: Sequence[Any], needs: Sequence[bool]
) -> tuple[Tensor, ...]:
    x = saved[0]
    assert x is not None
    grad_y = torch.zeros_like(x) if grads[0] is None else grads[0]
    grad_log_det = x.new_zeros(x.shape[:1], dtype=_tensors.total_dtype(x)) if grads[1] is None else grads[1]
    out: tuple[Tensor, ...] = run(OPERATOR, "backward", backend, grad_y, grad_log_det, *saved, *form)
    return out


def _formulas(x: Tensor, params: Tensor, scale: Tensor, offset: Tensor, *form: Any) -> tuple[Tensor, Tensor]:
    return _reference.affine_coupling_actnorm(x, params, scale, offset, decoded(*form)[0])


def _inputs(saved: Tensors, grads: Tensors, form: Sequence[Any]) -> tuple[Tensor | None, ...]:
    scale = saved[2]
    assert scale is not None
    return *saved, torch.zeros_like(scale)


_recorded = recorded(
    Gradient("AffineCouplingActnorm", 4, _forward, lambda args, _: args[:3], _backward, _formulas, _inputs),
    "affine_coupling_actnorm",
    option_types(OPERATOR.kernels["forward"]),
)
_quick = quick("affine_coupling_actnorm")


def _validate(x: Tensor, params: Tensor, scale: Tensor, offset: Tensor, form: CouplingForm) -> None:
    _tensors.check_batched("x", x, at_least=2)
    if x.ndim != 2:
        raise ValueError(f"x: got shape {_tensors.shape_text(x.shape)}, expected (B, D)")
    for name, value in (("params", params), ("scale", scale), ("offset", offset)):
        _tensors.check_param(name, value, x)
    rows, width = x.shape
    share = 2 if form.has_scale else 1
    if (
        params.ndim != 2
        or params.shape[0] != rows
        or params.shape[1] % share
        or not 0 < params.shape[1] // share <= width
    ):
        # texts are made here alone: made for every call, they would bind torch.compile to the sizes in them
        wanted = "2n" if form.has_scale else "n"
        raise ValueError(
            f"params: got shape {_tensors.shape_text(params.shape)}, expected ({rows}, {wanted}) with n in "
            f"1 .. {width} for x of shape {_tensors.shape_text(x.shape)} and this form"
        )
    for name, value in (("scale", scale), ("offset", offset)):
        if value.shape != (width,):
            raise ValueError(f"{name}: got shape {_tensors.shape_text(value.shape)}, expected ({width},)")


def _composed(x: Tensor, params: Tensor, scale: Tensor, offset: Tensor, form: CouplingForm) -> tuple[Tensor, Tensor]:
    """From the coupling alone, in one dtype, for the backends and the forms without a kernel of the whole."""
    coupled = params.shape[1] // 2 if form.has_scale else params.shape[1]
    x1, x2 = x.split((x.shape[1] - coupled, coupled), 1)
    y2, log_det = affine_coupling(x2, params, form=form)
    return torch.cat((x1, y2), 1) * scale + offset, log_det + scale.abs().log().sum()


def affine_coupling_actnorm(
    x: Tensor, params: Tensor, scale: Tensor, offset: Tensor, *, form: str | CouplingForm = "freia_all_in_one"
) -> tuple[Tensor, Tensor]:
    r"""``y = scale * (x1, coupling(x2)) + offset`` on vectors, with the log-determinant of both, in one pass.

    ``x2``, the last ``n`` numbers of each row, goes through the affine coupling of :func:`affine_coupling` in the
    direction data -> latent, where ``params`` are computed from ``x1``, the rest; then all numbers are scaled and
    shifted, as an actnorm does. Nothing is split or joined.

    Args:
        x: ``(B, D)``; float32, float64, bfloat16 or float16.
        params: raw network output, ``(B, 2n)``, or ``(B, n)`` for a form without scale; dtype of ``x``, or bfloat16
            or float16 beside float32 ``x``.
        scale: factors, not 0, ``(D,)``; dtype as for ``params``.
        offset: added after it, ``(D,)``; dtype as for ``params``.
        form: see :func:`affine_coupling`.

    Returns:
        ``y``, ``(B, D)``, dtype of ``x``, and ``log|det J|`` in nats, ``(B,)``, at least float32: the sum of the
        coupling's ``log s`` and of ``log|scale|``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or name.

    Source: Ardizzone et al. 2019 (arXiv:1907.02392), the block that FrEIA calls all-in-one; actnorm: Kingma and
    Dhariwal 2018 (arXiv:1807.03039), section 3.1.
    """
    resolved = resolve_form(form)
    whole = resolved.has_scale and resolved.layout in _HALVES
    if whole:
        out: tuple[Tensor, Tensor] | None = _quick(x, params, scale, offset, *resolved.spec(False))
        if out is not None:
            return out
    if isinstance(x, Tensor):
        x = _tensors.autocast_input(x)
    _validate(x, params, scale, offset, resolved)
    backend = choose(OPERATOR, x)
    if backend == "reference":
        return _reference.affine_coupling_actnorm(x, params, scale, offset, resolved)
    working = _tensors.total_dtype(x)
    # low precision is widened here and rounded once, at the end
    given = (x.to(working), params.to(working), scale.to(working), offset.to(working))
    if backend != "cpp" or not whole:
        y, log_det = _composed(*given, resolved)
    else:
        record = _recorded if needs_grad(*given) else _forward
        y, log_det = record(backend, *given, *resolved.spec(False))
    return y.to(x.dtype), log_det
