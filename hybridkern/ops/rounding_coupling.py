"""Integer-rounding coupling: schema, autograd and public function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hybridkern.ops import _check
from hybridkern.ops._autograd import once_differentiable, with_gradient
from hybridkern.ops._library import define
from hybridkern.ops._select import select
from hybridkern.reference import rounding_coupling as _reference


def _fake_forward(x: Tensor, t: Tensor, beta: Tensor | None, inverse: bool) -> Tensor:
    return torch.empty_like(x)


def _fake_backward(grad: Tensor, t: Tensor, beta: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(t), torch.empty_like(beta)


_forward = define("rounding_coupling_forward(Tensor x, Tensor t, Tensor? beta, bool inverse) -> Tensor", _fake_forward)
_backward = define(
    "rounding_coupling_backward(Tensor grad, Tensor t, Tensor beta, bool inverse) -> (Tensor, Tensor)",
    _fake_backward,
)


class _RoundingCoupling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, t: Tensor, beta: Tensor | None, inverse: bool) -> Tensor:
        if beta is not None:
            ctx.save_for_backward(t, beta)
        ctx.inverse, ctx.t_dtype = inverse, t.dtype
        y: Tensor = _forward(x, t, beta, inverse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.saved_tensors:
            grad_t, grad_beta = _backward(grad, *ctx.saved_tensors, ctx.inverse)
            return grad, grad_t, grad_beta, None
        return grad, (-grad if ctx.inverse else grad).to(ctx.t_dtype), None, None


_with_gradient = with_gradient("rounding_coupling", _RoundingCoupling)


def _validate(x: Tensor, t: Tensor, beta: Tensor | None) -> None:
    _check.check_param("t", t, x)
    if t.shape != x.shape:
        raise ValueError(
            f"t: got shape {_check.shape_text(t.shape)}, expected {_check.shape_text(x.shape)}, the shape of x"
        )
    if beta is not None:
        _check.check_tensor("beta", beta)
        _check.check_same_device("beta", beta, x)
        if beta.numel() != 1:
            raise ValueError(f"beta: got shape {_check.shape_text(beta.shape)}, expected one element: () or (1,)")


def rounding_coupling(x: Tensor, t: Tensor, *, beta: Tensor | float | None = None, inverse: bool = False) -> Tensor:
    r"""Integer coupling ``y = x + round(beta * t)`` (``x - round(...)`` inverse), half to even.

    Integers stay integers, exactly, as long as they fit the dtype (``|y| <= 2**24`` in float32). The gradient passes
    straight through the rounding: ``dy/dt = beta``, ``dy/dbeta = t``. The product ``beta * t`` is formed in float32
    (float64 for float64 ``x``) by every backend, so that all round the same number.

    Args:
        x: the half to shift, ``(B, *S)``; float32, float64, bfloat16 or float16.
        t: raw network output of the same shape; dtype of ``x``, or bfloat16 or float16 beside float32 ``x``.
        beta: scale of the translation, one element or a number; ``None`` is 1.
        inverse: subtract instead of add; undoes the forward call with the same ``t`` and ``beta``.

    Returns:
        ``y`` like ``x``. The map is volume-preserving on the lattice: no log-determinant.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape or device.

    Source: Hoogeboom et al. 2019 (arXiv:1905.07376), section 3; the factor ``beta`` is Tomczak's, moved inside the
    rounding so that the lattice is kept.
    """
    if isinstance(x, Tensor):
        x = _check.autocast_input(x)
    _check.check_batched("x", x)
    if isinstance(beta, (int, float)):
        beta = torch.tensor(float(beta), dtype=_check.total_dtype(x), device=x.device)
    _validate(x, t, beta)
    if select(x, "rounding_coupling") == "reference":
        return _reference.rounding_coupling(x, t, beta, inverse)
    needs_grad = x.requires_grad or t.requires_grad or (beta is not None and beta.requires_grad)
    run = _with_gradient if needs_grad and torch.is_grad_enabled() else _forward
    y: Tensor = run(x, t, beta, inverse)
    return y
