"""Affine coupling with the log-determinant accumulated in the same pass: schema, autograd and public function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hybridkern import _tensors
from hybridkern._precision import wide
from hybridkern._values import transformed
from hybridkern.ops._autograd import Gradient, Tensors, needs_grad, quick, recorded, reference_gradient
from hybridkern.ops._backends import choose
from hybridkern.ops._gpu import run, runner
from hybridkern.ops._operator import Operator, option_types
from hybridkern.ops.affine_coupling import reference as _reference
from hybridkern.ops.affine_coupling.contract import CONTRACTS
from hybridkern.ops.affine_coupling.form import CouplingForm, decoded, resolve_form, shifts_first

_FORM = "int code, float[8] numbers"


def _fake_forward(x: Tensor, params: Tensor, log_det: Tensor | None, *form: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty((x.shape[0],), dtype=_tensors.total_dtype(x, log_det))


def _fake_backward(x: Tensor, params: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(params)


def _fake_from_output(y: Tensor, params: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(y), torch.empty_like(y), torch.empty_like(params)


OPERATOR = Operator(
    "affine_coupling",
    {
        "forward": f"(Tensor x, Tensor params, Tensor? log_det, {_FORM}) -> (Tensor, Tensor)",
        "backward": "(Tensor known, Tensor params, Tensor? grad_y, Tensor? grad_log_det, "
        f"{_FORM}, bool known_is_output=False) -> (Tensor, Tensor)",
        "backward_from_output": "(Tensor y, Tensor params, Tensor? grad_y, Tensor? grad_log_det, "
        f"{_FORM}) -> (Tensor, Tensor, Tensor)",
    },
    {"forward": _fake_forward, "backward": _fake_backward, "backward_from_output": _fake_from_output},
    contracts=CONTRACTS,
    triton=True,
)


_forward: Callable[..., tuple[Tensor, Tensor]] = runner(OPERATOR, "forward")


def _keeps_output(x: Tensor, code: int) -> bool:
    """Where y = (x + t)*s, its derivative in the raw scale holds y itself: then neither x nor t need be read again.

    A rounded y would cost low-precision gradients a digit.
    """
    return shifts_first(code) and x.dtype not in _tensors.LOW


def _saves(args: Sequence[Any], outputs: Any) -> tuple[Tensor, Tensor]:
    x, params, _, code = args[:4]
    return (outputs[0] if _keeps_output(x, code) else x), params


def _backward(
    backend: str, saved: Tensors, grads: Tensors, form: Sequence[Any], needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    known, params = saved
    assert known is not None
    out = run(OPERATOR, "backward", backend, known, params, *grads, *form, _keeps_output(known, form[0]))
    return *out, grads[1]


def _formulas(x: Tensor, params: Tensor, log_det: Tensor | None, *form: Any) -> tuple[Tensor, Tensor]:
    return _reference.affine_coupling(x, params, log_det, *decoded(*form))


def _inputs(saved: Tensors, grads: Tensors, form: Sequence[Any]) -> tuple[Tensor | None, ...]:
    known, params = saved
    assert known is not None and params is not None
    log_det = known.new_zeros(len(known), dtype=_tensors.total_dtype(known) if grads[1] is None else grads[1].dtype)
    if not _keeps_output(known, form[0]):
        return known, params, log_det
    resolved, inverse = decoded(*form)
    return _reference.affine_coupling(known, params, None, resolved, not inverse)[0], params, log_det


_GRADIENT = Gradient("AffineCoupling", 3, _forward, _saves, _backward, _formulas, _inputs)
_recorded = recorded(_GRADIENT, "affine_coupling", option_types(OPERATOR.kernels["forward"]))
_quick = quick("affine_coupling")


def _validate(x: Tensor, params: Tensor, form: CouplingForm, name: str = "x") -> None:
    _tensors.check_batched(name, x, at_least=2)
    _tensors.check_param("params", params, x)
    shape = x.shape
    channels = 2 * shape[1] if form.has_scale else shape[1]
    if params.shape != (shape[0], channels, *shape[2:]):
        expected = _tensors.shape_text((shape[0], channels, *shape[2:]))
        raise ValueError(
            f"params: got shape {_tensors.shape_text(params.shape)}, expected {expected} for {name} of shape "
            f"{_tensors.shape_text(shape)} and this form"
        )


def _validate_total(name: str, value: Tensor, x: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a torch.Tensor")
    _tensors.check_dense(name, value)
    if value.dtype is not torch.float32 and value.dtype is not torch.float64:
        raise TypeError(f"{name}: got dtype {value.dtype}, expected float32 or float64")
    if value.shape != x.shape[:1]:
        raise ValueError(f"{name}: got shape {_tensors.shape_text(value.shape)}, expected ({x.shape[0]},)")
    _tensors.check_same_device(name, value, x)


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
        log_det: of the layers before, in nats, ``(B,)``, float32 or float64; not changed. ``None`` is zero.
        form: a name (``"exp"``, ``"glow"``, ``"additive"``, ``"realnvp"``, ``"normflows"``, ``"nflows"``,
            ``"freia"``, ``"zuko"``, ``"bounded"`` and the variants of the last libraries) or a :class:`CouplingForm`.
        inverse: compute the inverse map and its log-determinant.

    Returns:
        ``y`` like ``x``, and ``log_det + log|det J|`` of the direction computed, ``(B,)``, at least float32.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or name.

    Source: Dinh et al. 2017 (arXiv:1605.08803), equations 7 and 8; Kingma and Dhariwal 2018 (arXiv:1807.03039),
    table 1, for ``"glow"``; the named forms follow the code of the libraries they are named after.
    """
    resolved = resolve_form(form)
    if type(inverse) is not bool:
        inverse = _tensors.flag("inverse", inverse)  # type: ignore[unreachable]  # a caller may not be typed
    out: tuple[Tensor, Tensor] | None = _quick(x, params, log_det, *resolved.spec(inverse))
    if out is not None:
        return out
    if isinstance(x, Tensor):
        x = _tensors.autocast_input(x)
    _validate(x, params, resolved)
    if log_det is not None:
        _validate_total("log_det", log_det, x)
    backend = choose(OPERATOR, x)
    if backend == "reference":
        return _reference.affine_coupling(x, params, log_det, resolved, inverse)
    record = _recorded if needs_grad(x, params, log_det) else _forward
    out = record(backend, x, params, log_det, *resolved.spec(inverse))
    assert out is not None
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
    if type(inverse) is not bool:
        inverse = _tensors.flag("inverse", inverse)  # type: ignore[unreachable]  # a caller may not be typed
    _validate(y, params, resolved, "y")
    _tensors.check_tensor("grad_y", grad_y)
    if grad_y.shape != y.shape or grad_y.dtype is not y.dtype:
        raise ValueError(
            f"grad_y: got {grad_y.dtype} of shape {_tensors.shape_text(grad_y.shape)}, expected {y.dtype} of shape "
            f"{_tensors.shape_text(y.shape)}, like y"
        )
    _tensors.check_same_device("grad_y", grad_y, y)
    _validate_total("grad_log_det", grad_log_det, y)
    backend, spec = choose(OPERATOR, y), resolved.spec(inverse)
    if backend == "reference" or needs_grad(y, params, grad_y, grad_log_det):
        return _formulas_from_output(y, params, grad_y, grad_log_det, spec)
    out: tuple[Tensor, Tensor, Tensor] = run(
        OPERATOR, "backward_from_output", backend, y, params, grad_y, grad_log_det, *spec
    )
    return out


def _formulas_from_output(
    y: Tensor, params: Tensor, grad_y: Tensor, grad_log_det: Tensor, spec: Sequence[Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """In formulas that can be differentiated themselves, where somebody records them."""
    form, inverse = decoded(*spec)
    given = wide(params)  # once: the gradients of both of its uses are summed before they are rounded
    x, _ = _reference.affine_coupling(y, given, None, form, not inverse)
    grads = reference_gradient(_GRADIENT, (x, given), (grad_y, grad_log_det), spec, lambda saved, *_: (*saved, None))
    grad_x, grad_params = (torch.zeros_like(v) if g is None else g for v, g in zip((x, given), grads[:2], strict=True))
    grad_params = grad_params.to(params.dtype)
    if not (needs_grad(y, params, grad_y, grad_log_det) or transformed()):  # detached, they would lose a tangent
        x, grad_x, grad_params = x.detach(), grad_x.detach(), grad_params.detach()
    return x, grad_x, grad_params
