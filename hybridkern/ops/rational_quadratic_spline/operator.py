"""Monotonic rational-quadratic spline with its log-determinant: schema, autograd and public function."""

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
from hybridkern.ops.rational_quadratic_spline import reference as _reference
from hybridkern.ops.rational_quadratic_spline.contract import CONTRACTS, parameter_shape
from hybridkern.ops.rational_quadratic_spline.form import (
    SplineForm,
    check_bins,
    check_tails,
    decoded,
    interval_of,
    resolve_spline,
)

_SPLINE = "int code, float low, float high, float min_width, float min_height, float least, float gain, float beta"


def _fake_forward(x: Tensor, params: Tensor, log_det: Tensor | None, *spline: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty((x.shape[0],), dtype=_tensors.total_dtype(x, log_det))


def _fake_backward(x: Tensor, params: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(params)


OPERATOR = Operator(
    "rational_quadratic_spline",
    {
        "forward": f"(Tensor x, Tensor params, Tensor? log_det, {_SPLINE}) -> (Tensor, Tensor)",
        "backward": f"(Tensor x, Tensor params, Tensor? grad_y, Tensor? grad_log_det, {_SPLINE}) -> (Tensor, Tensor)",
    },
    {"forward": _fake_forward, "backward": _fake_backward},
    contracts=CONTRACTS,
    triton=True,
)


_forward: Callable[..., tuple[Tensor, Tensor]] = runner(OPERATOR, "forward")


def _backward(
    backend: str, saved: Tensors, grads: Tensors, spline: Sequence[Any], needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    return *run(OPERATOR, "backward", backend, *saved, *grads, *spline), grads[1]


def _formulas(x: Tensor, params: Tensor, log_det: Tensor | None, *spline: Any) -> tuple[Tensor, Tensor]:
    return _reference.rational_quadratic_spline(x, params, log_det, decoded(*spline))


def _inputs(saved: Tensors, grads: Tensors, spline: Sequence[Any]) -> tuple[Tensor | None, ...]:
    x, params = saved
    assert x is not None and params is not None
    dtype = _tensors.total_dtype(x) if grads[1] is None else grads[1].dtype
    return x, params, x.new_zeros(len(x), dtype=dtype)


_GRADIENT = Gradient("RationalQuadraticSpline", 3, _forward, lambda args, _: args[:2], _backward, _formulas, _inputs)
_recorded = recorded(_GRADIENT, "rational_quadratic_spline", option_types(OPERATOR.kernels["forward"]))
_quick = quick("rational_quadratic_spline")


def _validated(x: Tensor, params: Tensor, count: int) -> Tensor:
    """The parameters with a batch axis, of size 1 where the batch shares them."""
    _tensors.check_batched("x", x, at_least=2)
    _tensors.check_param("params", params, x)
    full = parameter_shape(x, count)
    if params.shape in (full, (1, *full[1:])):
        return params
    if params.shape == full[1:]:
        return params.unsqueeze(0)
    raise ValueError(
        f"params: got shape {_tensors.shape_text(params.shape)}, expected {_tensors.shape_text(full)}, or "
        f"{_tensors.shape_text(full[1:])} for all of the batch, for x of shape {_tensors.shape_text(x.shape)}: "
        f"{count} numbers per element"
    )


def _validate_total(value: Tensor, x: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"log_det: got {type(value).__name__}, expected a torch.Tensor")
    _tensors.check_dense("log_det", value)
    if value.dtype is not torch.float32 and value.dtype is not torch.float64:
        raise TypeError(f"log_det: got dtype {value.dtype}, expected float32 or float64")
    if value.shape != x.shape[:1]:
        raise ValueError(
            f"log_det: got shape {_tensors.shape_text(value.shape)}, expected {_tensors.shape_text(x.shape[:1])}"
        )
    _tensors.check_same_device("log_det", value, x)


def rational_quadratic_spline(
    x: Tensor,
    params: Tensor,
    log_det: Tensor | None = None,
    *,
    spline: str | SplineForm = "nflows",
    bins: int = 8,
    bound: float | tuple[float, float] = 3.0,
    tails: str = "linear",
    inverse: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Monotonic rational-quadratic spline of every element, with the log-determinant accumulated in the same pass.

    The spline maps ``[-bound, bound]`` onto itself in ``bins`` bins. An element has ``bins`` raw widths, ``bins`` raw
    heights and raw derivatives, in this order; :class:`SplineForm` says how they become widths, heights and
    derivatives, and :meth:`SplineForm.parameters` how many they are. Outside the interval values stay as they are,
    with a log-derivative of 0, whatever ``tails`` says; where a library refuses values outside a box, compare them
    first.

    ``tails`` names what the derivatives at the ends are:

    - ``"linear"``: 1, so that the map is smooth there; ``3*bins - 1`` numbers per element;
    - ``"box"``: trained, for data that lies in the interval; ``3*bins + 1`` numbers;
    - ``"circular"``: the same at both ends, for angles. Under ``"nflows"`` it is trained (``3*bins`` numbers; as in
      normflows). Under ``"zuko"`` it is 1 (``3*bins - 1``), and values are first turned by half a circle and brought
      back into the interval, from wherever they are; that is ``zuko.flows.NCSF``.

    Args:
        x: values, ``(B, D)`` or ``(B, C, *S)``; float32, float64, bfloat16 or float16.
        params: raw network output. For ``x`` of two dimensions ``(B, D, n)``; for others ``(B, C*n, *S)``, the ``n``
            numbers of a channel together. Without the batch axis, or with a 1 there, the batch shares them. Dtype of
            ``x``, or bfloat16 or float16 beside float32 ``x`` (converted in registers).
        log_det: running total in nats, ``(B,)``, float32 or float64; not changed. ``None`` starts at zero.
        spline: ``"nflows"`` (also what normflows and glasflow do), ``"nflows_identity"``, ``"zuko"`` or a
            :class:`SplineForm`.
        bins: from 2 to 64.
        bound: half the width of the interval, in the units of ``x``; or its ends ``(low, high)``.
        tails: ``"linear"``, ``"box"`` or ``"circular"``.
        inverse: compute the inverse map and its log-determinant.

    Returns:
        ``y`` like ``x``, and ``log_det + log|det J|`` of the direction computed, ``(B,)``, at least float32.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device, name or range.

    Source: Durkan et al. 2019 (arXiv:1906.04032), equations 4 to 8; circular splines: Rezende et al. 2020
    (arXiv:2002.02428); the parametrizations follow the code of the libraries that they are named after.
    """
    form = resolve_spline(spline)
    bins, tails, interval = check_bins(bins, form), check_tails(tails), interval_of(bound)
    inverse = _tensors.flag("inverse", inverse)
    numbers = form.spec(bins, interval, tails, inverse)
    out: tuple[Tensor, Tensor] | None = _quick(x, params, log_det, *numbers)
    if out is not None:
        return out
    if isinstance(x, Tensor):
        x = _tensors.autocast_input(x)
    params = _validated(x, params, form.parameters(bins, tails))
    if log_det is not None:
        _validate_total(log_det, x)
    backend = choose(OPERATOR, x)
    if backend == "reference":
        return _reference.rational_quadratic_spline(x, params, log_det, decoded(*numbers))
    record = _recorded if needs_grad(x, params, log_det) else _forward
    out = record(backend, x, params, log_det, *numbers)
    assert out is not None
    return out
