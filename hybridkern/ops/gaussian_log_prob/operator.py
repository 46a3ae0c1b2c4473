"""Log-probability of a diagonal Gaussian, summed over each example: schema, autograd and public function."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hybridkern import _tensors
from hybridkern.ops._autograd import Gradient, all_saved, needs_grad, quick, recorded
from hybridkern.ops._backends import choose
from hybridkern.ops._broadcast import broadcast_params
from hybridkern.ops._gpu import backward_of, runner
from hybridkern.ops._operator import Operator
from hybridkern.ops.gaussian_log_prob import reference as _reference
from hybridkern.ops.gaussian_log_prob.contract import CONTRACTS


def _fake_forward(x: Tensor, mean: Tensor | None, log_scale: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0],), dtype=_tensors.total_dtype(x))


def _fake_backward(
    grad: Tensor, x: Tensor, mean: Tensor | None, log_scale: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    def like(value: Tensor | None) -> Tensor:
        return x.new_empty((0,)) if value is None else value.new_empty(value.shape)

    return torch.empty_like(x), like(mean), like(log_scale)


OPERATOR = Operator(
    "gaussian_log_prob",
    {
        "forward": "(Tensor x, Tensor? mean, Tensor? log_scale) -> Tensor",
        "backward": "(Tensor grad, Tensor x, Tensor? mean, Tensor? log_scale) -> (Tensor, Tensor, Tensor)",
    },
    {"forward": _fake_forward, "backward": _fake_backward},
    contracts=CONTRACTS,
    triton=True,
)


_forward: Callable[..., Tensor] = runner(OPERATOR, "forward")


_recorded = recorded(
    Gradient(
        "GaussianLogProb",
        3,
        _forward,
        lambda args, _: args,
        backward_of(OPERATOR),
        _reference.gaussian_log_prob,
        all_saved,
    ),
    "gaussian_log_prob",
)
_quick = quick("gaussian_log_prob")


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
    log_p: Tensor | None = _quick(x, mean, log_scale)
    if log_p is not None:
        return log_p
    if isinstance(x, Tensor):
        x = _tensors.autocast_input(x)
    _tensors.check_batched("x", x)
    given = tuple((name, value) for name, value in (("mean", mean), ("log_scale", log_scale)) if value is not None)
    for name, value in given:
        _tensors.check_param(name, value, x)
    params = dict(zip((name for name, _ in given), broadcast_params(given, x.shape), strict=True))
    mean, log_scale = params.get("mean"), params.get("log_scale")
    backend = choose(OPERATOR, x)
    if backend == "reference":
        return _reference.gaussian_log_prob(x, mean, log_scale)
    record = _recorded if needs_grad(x, mean, log_scale) else _forward
    log_p = record(backend, x, mean, log_scale)
    assert log_p is not None
    return log_p
