"""An affine coupling on vectors and the scale and offset that follow it, in one pass: schema, autograd and function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hybridkern._coupling_form import CouplingForm, resolve_form
from hybridkern.ops import _check
from hybridkern.ops._autograd import once_differentiable, with_gradient
from hybridkern.ops._library import define
from hybridkern.ops._select import select
from hybridkern.ops.affine_coupling import affine_coupling
from hybridkern.reference import affine_coupling_actnorm as _reference

_FORM = "int code, float clamp, float form_offset, float eps, float gain, float shift_gain"


def _fake_forward(x: Tensor, params: Tensor, scale: Tensor, offset: Tensor, *form: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[:1], dtype=_check.total_dtype(x))


def _fake_backward(
    grad_y: Tensor, grad_log_det: Tensor, x: Tensor, params: Tensor, scale: Tensor, *form: Any
) -> tuple[Tensor, ...]:
    return tuple(value.new_empty(value.shape) for value in (x, params, scale, scale))


_forward = define(
    f"affine_coupling_actnorm_forward(Tensor x, Tensor params, Tensor scale, Tensor offset, {_FORM}) "
    "-> (Tensor, Tensor)",
    _fake_forward,
)
_backward = define(
    "affine_coupling_actnorm_backward(Tensor grad_y, Tensor grad_log_det, Tensor x, Tensor params, Tensor scale, "
    f"{_FORM}) -> (Tensor, Tensor, Tensor, Tensor)",
    _fake_backward,
)


class _AffineCouplingActnorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, params: Tensor, scale: Tensor, offset: Tensor, *form: Any
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, params, scale)
        ctx.form = form
        out: tuple[Tensor, Tensor] = _forward(x, params, scale, offset, *form)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        return *_backward(grad_y, grad_log_det, *ctx.saved_tensors, *ctx.form), *(None,) * 6


_with_gradient = with_gradient("affine_coupling_actnorm", _AffineCouplingActnorm)


def _validate(x: Tensor, params: Tensor, scale: Tensor, offset: Tensor, form: CouplingForm) -> None:
    _check.check_batched("x", x, at_least=2)
    if x.ndim != 2:
        raise ValueError(f"x: got shape {_check.shape_text(x.shape)}, expected (B, D)")
    for name, value in (("params", params), ("scale", scale), ("offset", offset)):
        _check.check_param(name, value, x)
    rows, width = x.shape
    wanted = f"({rows}, 2n) with n in 1 .. {width}" if form.has_scale else f"({rows}, n) with n in 1 .. {width}"
    share = 2 if form.has_scale else 1
    if (
        params.ndim != 2
        or params.shape[0] != rows
        or params.shape[1] % share
        or not 0 < params.shape[1] // share <= width
    ):
        raise ValueError(
            f"params: got shape {_check.shape_text(params.shape)}, expected {wanted} for x of shape "
            f"{_check.shape_text(x.shape)} and this form"
        )
    for name, value in (("scale", scale), ("offset", offset)):
        if value.shape != (width,):
            raise ValueError(f"{name}: got shape {_check.shape_text(value.shape)}, expected ({width},)")


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
    if isinstance(x, Tensor):
        x = _check.autocast_input(x)
    _validate(x, params, scale, offset, resolved)
    backend = select(x, "affine_coupling")
    if backend == "reference":
        return _reference.affine_coupling_actnorm(x, params, scale, offset, resolved)
    f, working = resolved, _check.total_dtype(x)
    # low precision is widened here and rounded once, at the end
    given = (x.to(working), params.to(working), scale.to(working), offset.to(working))
    if backend != "cpp" or not f.has_scale or f.layout == "interleaved":
        y, log_det = _composed(*given, f)
    else:
        run = _with_gradient if torch.is_grad_enabled() and any(value.requires_grad for value in given) else _forward
        y, log_det = run(*given, f.code(False), f.clamp, f.offset, f.eps, f.gain, f.shift_gain)
    return y.to(x.dtype), log_det
