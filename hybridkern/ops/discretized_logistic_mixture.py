"""Log-probability of a mixture of discretized logistics: schema, autograd and public function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hybridkern.ops import _check
from hybridkern.ops._autograd import once_differentiable, with_gradient
from hybridkern.ops._broadcast import broadcast_params
from hybridkern.ops._library import define
from hybridkern.ops._select import select
from hybridkern.ops.discretized_logistic import check_options
from hybridkern.reference import discretized_logistic_mixture as _reference

_PARAMS = "Tensor logits, Tensor mean, Tensor log_scale, float bin_width, bool reduce"


def _fake_forward(x: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float, reduce: bool) -> Tensor:
    return x.new_empty((x.shape[0],), dtype=_check.total_dtype(x)) if reduce else torch.empty_like(x)


def _fake_backward(
    grad: Tensor, x: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float, reduce: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    params = (logits, mean, log_scale)
    grads = [value.new_empty(value.shape) for value in params]
    return torch.empty_like(x), grads[0], grads[1], grads[2]


_forward = define(f"discretized_logistic_mixture_forward(Tensor x, {_PARAMS}) -> Tensor", _fake_forward)
_backward = define(
    f"discretized_logistic_mixture_backward(Tensor grad, Tensor x, {_PARAMS}) -> (Tensor, Tensor, Tensor, Tensor)",
    _fake_backward,
)


class _Mixture(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float, reduce: bool
    ) -> Tensor:
        ctx.save_for_backward(x, logits, mean, log_scale)
        ctx.options = (bin_width, reduce)
        log_p: Tensor = _forward(x, logits, mean, log_scale, bin_width, reduce)
        return log_p

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *_backward(grad, *ctx.saved_tensors, *ctx.options), None, None


_with_gradient = with_gradient("discretized_logistic_mixture", _Mixture)


def discretized_logistic_mixture_log_prob(
    x: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor, *, bin_width: float = 1.0, reduction: str = "none"
) -> Tensor:
    r"""Log-probability of ``x`` under a mixture of ``K`` discretized logistics per element, in nats.

    ``log sum_k softmax(logits)_k P_k(x)`` with ``P_k`` as in :func:`discretized_logistic_log_prob`: no floor, exact
    in the tails.

    Args:
        x: values, ``(B, *S)``; float32, float64, bfloat16 or float16.
        logits, mean, log_scale: unnormalized log-weights, locations and log-scales, each broadcast to
            ``(B, K, *S)``: the mixture dimension stands at dim 1. Dtype of ``x``, or bfloat16 or float16 beside
            float32 ``x``.
        bin_width: width of the bin, in the units of ``x``; from 1e-6 to 1e6.
        reduction: ``"none"`` or ``"sum"``, which sums over each example.

    Returns:
        Log-probabilities in nats: like ``x``, or ``(B,)``, at least float32, for ``"sum"``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or range.

    Source: Salimans et al. 2017 (arXiv:1701.05517), section 2.1, without the edge bins.
    """
    if isinstance(x, Tensor):
        x = _check.autocast_input(x)
    _check.check_batched("x", x)
    check_options(bin_width, reduction)
    named = (("logits", logits), ("mean", mean), ("log_scale", log_scale))
    for name, value in named:
        _check.check_param(name, value, x)
        if value.ndim != x.ndim + 1:
            raise ValueError(
                f"{name}: got shape {_check.shape_text(value.shape)}, expected {x.ndim + 1} dimensions: those of x "
                "with the mixture dimension K inserted at dim 1"
            )
    components = max(logits.shape[1], mean.shape[1], log_scale.shape[1])
    if components < 1:
        raise ValueError("logits: got 0 components at dim 1, expected at least 1")
    shape = (x.shape[0], components, *x.shape[1:])
    logits, mean, log_scale = broadcast_params(named, shape)
    if select(x, "discretized_logistic_mixture") == "reference":
        return _reference.discretized_logistic_mixture_log_prob(x, logits, mean, log_scale, bin_width, reduction)
    needs_grad = any(value.requires_grad for value in (x, logits, mean, log_scale))
    run = _with_gradient if needs_grad and torch.is_grad_enabled() else _forward
    log_p: Tensor = run(x, logits, mean, log_scale, bin_width, reduction == "sum")
    return log_p
