"""Log-probability of a diagonal Gaussian, summed over each example: schema, autograd and public function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hybridkern.ops import _check
from hybridkern.ops._autograd import once_differentiable, with_gradient
from hybridkern.ops._broadcast import broadcast_params
from hybridkern.ops._library import define
from hybridkern.ops._select import select
from hybridkern.reference import gaussian_log_prob as _reference


def _fake_forward(x: Tensor, mean: Tensor | None, log_scale: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0],), dtype=_check.total_dtype(x))


def _fake_backward(
    grad: Tensor, x: Tensor, mean: Tensor | None, log_scale: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    def like(value: Tensor | None) -> Tensor:
        return x.new_empty((0,)) if value is None else value.new_empty(value.shape)

    return torch.empty_like(x), like(mean), like(log_scale)


_forward = define("gaussian_log_prob_forward(Tensor x, Tensor? mean, Tensor? log_scale) -> Tensor", _fake_forward)
_backward = define(
    "gaussian_log_prob_backward(Tensor grad, Tensor x, Tensor? mean, Tensor? log_scale) -> (Tensor, Tensor, Tensor)",
    _fake_backward,
)


class _GaussianLogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor | None, log_scale: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, mean, log_scale)
        log_p: Tensor = _forward(x, mean, log_scale)
        return log_p

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, log_scale = ctx.saved_tensors
        grad_x, grad_mean, grad_log_scale = _backward(grad, x, mean, log_scale)
        return grad_x, (None if mean is None else grad_mean), (None if log_scale is None else grad_log_scale)


_with_gradient = with_gradient("gaussian_log_prob", _GaussianLogProb)


def gaussian_log_prob(x: Tensor, mean: Tensor | None = None, log_scale: Tensor | None = None) -> Tensor:
    r"""Log-density of a diagonal Gaussian in nats, summed over each example, in one pass.

    ``sum_i -log(2 pi)/2 - log_scale_i - ((x_i - mean_i) exp(-log_scale_i))^2 / 2``.

    Args:
        x: values, ``(B, *S)``; float32, float64, bfloat16 or float16.
        mean: location, broadcast to ``x``; ``None`` is 0. Dtype of ``x``, or bfloat16 or float16 beside float32.
        log_scale: log of the standard deviation, likewise; ``None`` is 0.

    Returns:
        ``(B,)``, at least float32.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape or device.

    Source: the density of the normal distribution.
    """
    if isinstance(x, Tensor):
        x = _check.autocast_input(x)
    _check.check_batched("x", x)
    given = tuple((name, value) for name, value in (("mean", mean), ("log_scale", log_scale)) if value is not None)
    for name, value in given:
        _check.check_param(name, value, x)
    params = dict(zip((name for name, _ in given), broadcast_params(given, x.shape), strict=True))
    mean, log_scale = params.get("mean"), params.get("log_scale")
    if select(x, "gaussian_log_prob") == "reference":
        return _reference.gaussian_log_prob(x, mean, log_scale)
    needs_grad = (
        x.requires_grad
        or (mean is not None and mean.requires_grad)
        or (log_scale is not None and log_scale.requires_grad)
    )
    run = _with_gradient if needs_grad and torch.is_grad_enabled() else _forward
    log_p: Tensor = run(x, mean, log_scale)
    return log_p
