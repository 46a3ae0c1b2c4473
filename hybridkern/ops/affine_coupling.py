"""Affine coupling with the log-determinant accumulated in the same pass: schema, autograd and public function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hybridkern._coupling_form import CouplingForm, resolve_form
from hybridkern.ops import _check
from hybridkern.ops._autograd import once_differentiable, with_gradient
from hybridkern.ops._library import define
from hybridkern.ops._select import select
from hybridkern.reference import affine_coupling as _reference

_FORM = "int code, float clamp, float offset, float eps, float gain, float shift_gain"


def _total_dtype(x: Tensor, log_det: Tensor | None) -> torch.dtype:
    own = _check.total_dtype(x)
    return own if log_det is None else torch.promote_types(own, log_det.dtype)


def _fake_forward(x: Tensor, params: Tensor, log_det: Tensor | None, *form: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty((x.shape[0],), dtype=_total_dtype(x, log_det))


def _fake_backward(x: Tensor, params: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(params)


def _fake_from_output(y: Tensor, params: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(y), torch.empty_like(y), torch.empty_like(params)


_forward = define(
    f"affine_coupling_forward(Tensor x, Tensor params, Tensor? log_det, {_FORM}) -> (Tensor, Tensor)", _fake_forward
)
_backward = define(
    "affine_coupling_backward(Tensor known, Tensor params, Tensor? grad_y, Tensor? grad_log_det, "
    f"{_FORM}, bool known_is_output=False) -> (Tensor, Tensor)",
    _fake_backward,
)
_backward_from_output = define(
    "affine_coupling_backward_from_output(Tensor y, Tensor params, Tensor? grad_y, Tensor? grad_log_det, "
    f"{_FORM}) -> (Tensor, Tensor, Tensor)",
    _fake_from_output,
)


class _AffineCoupling(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, params: Tensor, log_det: Tensor | None, keep_output: bool, *form: Any
    ) -> tuple[Tensor, Tensor]:
        y, total = _forward(x, params, log_det, *form)
        # where y = (x + t)*s, its derivative in the raw scale holds y itself: then neither x nor t need be read again
        ctx.save_for_backward(y if keep_output else x, params)
        ctx.form = (*form, keep_output)
        ctx.log_det_dtype = None if log_det is None else log_det.dtype
        ctx.set_materialize_grads(False)
        return y, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor | None, grad_log_det: Tensor | None) -> tuple[Tensor | None, ...]:
        known, params = ctx.saved_tensors
        grad_x, grad_params = _backward(known, params, grad_y, grad_log_det, *ctx.form)
        grad_total = grad_log_det if ctx.log_det_dtype is not None else None
        if grad_total is not None and grad_total.dtype is not ctx.log_det_dtype:
            grad_total = grad_total.to(ctx.log_det_dtype)
        return grad_x, grad_params, grad_total, None, None, None, None, None, None, None


_with_gradient = with_gradient("affine_coupling", _AffineCoupling)


def _validate(x: Tensor, params: Tensor, form: CouplingForm, name: str = "x") -> None:
    if (
        isinstance(x, Tensor) and isinstance(params, Tensor)
        and x.dtype is params.dtype is torch.float32 and x.device == params.device
        and (shape := x.shape)[1:] and params.shape == (shape[0], shape[1] * (1 + form.has_scale), *shape[2:])
    ):  # fmt: skip
        return  # the usual call pays for one look only
    _check.check_batched(name, x, at_least=2)
    _check.check_param("params", params, x)
    shape = x.shape
    channels = 2 * shape[1] if form.has_scale else shape[1]
    if params.shape != (shape[0], channels, *shape[2:]):
        expected = _check.shape_text((shape[0], channels, *shape[2:]))
        raise ValueError(
            f"params: got shape {_check.shape_text(params.shape)}, expected {expected} for {name} of shape "
            f"{_check.shape_text(shape)} and this form"
        )


def _validate_total(name: str, value: Tensor, x: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a torch.Tensor")
    if value.dtype is not torch.float32 and value.dtype is not torch.float64:
        raise TypeError(f"{name}: got dtype {value.dtype}, expected float32 or float64")
    if value.shape != x.shape[:1]:
        raise ValueError(f"{name}: got shape {_check.shape_text(value.shape)}, expected ({x.shape[0]},)")
    _check.check_same_device(name, value, x)


def affine_coupling(
    x: Tensor,
    params: Tensor,
    log_det: Tensor | None = None,
    *,
    form: str | CouplingForm = "exp",
    inverse: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Affine coupling ``y = x*s + t`` (or another form) with its log-determinant, in one pass.

    The direction is data -> latent; ``inverse=True`` computes latent -> data. The form ``"normflows"`` is that
    library's map in this direction, ``(x - t) * sigma(a + 2)``; what it calls "forward", ``z / sigma(a + 2) + t``,
    is ``inverse=True``. Gradients are exact and computed in one pass over the inputs.

    Args:
        x: the half to transform, ``(B, C, *S)``; float32, float64, bfloat16 or float16.
        params: raw network output, ``(B, 2C, *S)``, or ``(B, C, *S)`` for a form without scale. Same dtype as ``x``,
            or bfloat16 or float16 beside float32 ``x`` (converted in registers).
        log_det: running total in nats, ``(B,)``, float32 or float64; not changed. ``None`` starts at zero.
        form: a name (``"exp"``, ``"glow"``, ``"additive"``, ``"realnvp"``, ``"normflows"``, ``"nflows"``,
            ``"freia"``, ``"zuko"`` and the variants of the last libraries) or a :class:`CouplingForm`.
        inverse: compute the inverse map and its log-determinant.

    Returns:
        ``y`` like ``x``, and ``log_det + log|det J|`` of the direction computed, ``(B,)``, at least float32.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or name.

    Source: Dinh et al. 2017 (arXiv:1605.08803), equations 7 and 8; Kingma and Dhariwal 2018 (arXiv:1807.03039),
    table 1, for ``"glow"``; the named forms follow the code of the libraries they are named after.
    """
    resolved = resolve_form(form)
    if isinstance(x, Tensor):
        x = _check.autocast_input(x)
    _validate(x, params, resolved)
    if log_det is not None:
        _validate_total("log_det", log_det, x)
    if select(x, "affine_coupling") == "reference":
        return _reference.affine_coupling(x, params, log_det, resolved, inverse)
    f = resolved
    spec = (f.code(inverse), f.clamp, f.offset, f.eps, f.gain, f.shift_gain)
    needs_grad = x.requires_grad or params.requires_grad or (log_det is not None and log_det.requires_grad)
    out: tuple[Tensor, Tensor]
    if needs_grad and torch.is_grad_enabled():
        # a rounded y would cost low-precision gradients a digit
        keep_output = f.shifts_first(inverse) and x.dtype not in _check.LOW
        out = _with_gradient(x, params, log_det, keep_output, *spec)
    else:
        out = _forward(x, params, log_det, *spec)
    return out


def affine_coupling_backward_from_output(
    y: Tensor,
    params: Tensor,
    grad_y: Tensor,
    grad_log_det: Tensor,
    *,
    form: str | CouplingForm = "exp",
    inverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Backward pass of :func:`affine_coupling` from its output: recovers ``x`` and the gradients in one pass.

    This is what keeps memory flat in depth: the input of the coupling need not be stored.

    Args:
        y: the output of ``affine_coupling(x, params, form=form, inverse=inverse)``, ``(B, C, *S)``.
        params: the parameters given there.
        grad_y: gradient of the loss in ``y``, shape and dtype of ``y``.
        grad_log_det: gradient of the loss in the returned log-determinant, ``(B,)``, float32 or float64.
        form, inverse: as given there.

    Returns:
        ``x`` recovered, and the gradients in ``x`` and ``params``, each shaped like what it belongs to.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or name.
    """
    resolved = resolve_form(form)
    _validate(y, params, resolved, "y")
    _check.check_tensor("grad_y", grad_y)
    if grad_y.shape != y.shape or grad_y.dtype is not y.dtype:
        raise ValueError(
            f"grad_y: got {grad_y.dtype} of shape {_check.shape_text(grad_y.shape)}, expected {y.dtype} of shape "
            f"{_check.shape_text(y.shape)}, like y"
        )
    _check.check_same_device("grad_y", grad_y, y)
    _validate_total("grad_log_det", grad_log_det, y)
    if select(y, "affine_coupling") == "reference":
        return _reference_from_output(y, params, grad_y, grad_log_det, resolved, inverse)
    f = resolved
    spec = (f.code(inverse), f.clamp, f.offset, f.eps, f.gain, f.shift_gain)
    out: tuple[Tensor, Tensor, Tensor] = _backward_from_output(y, params, grad_y, grad_log_det, *spec)
    return out


def _reference_from_output(
    y: Tensor, params: Tensor, grad_y: Tensor, grad_log_det: Tensor, form: CouplingForm, inverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.no_grad():
        x, _ = _reference.affine_coupling(y, params, None, form, not inverse)
    with torch.enable_grad():
        leaves = (x.detach().requires_grad_(), params.detach().requires_grad_())
        out, log_det = _reference.affine_coupling(*leaves, None, form, inverse)
        pairs = [(out, grad_y)]
        if log_det.requires_grad:  # it is constant where the form has no scale
            pairs.append((log_det, grad_log_det.to(log_det.dtype)))
        values, incoming = zip(*pairs, strict=True)
        grad_x, grad_params = torch.autograd.grad(values, leaves, incoming)
    return x, grad_x, grad_params
